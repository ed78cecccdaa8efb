package cell

import "fmt"

// Spec says what to run, and where.
type Spec struct {
	Root     string   // mounted directory that becomes "/"; not for Exec
	Hostname string   // not for Exec
	Args     []string // Args[0] is looked up in PATH of Env if it has no slash
	Env      []string // HOME is added if missing
	Dir      string   // working directory; made if missing, but not by Exec; "" is "/"
	User     string   // NAME|UID[:GROUP|GID] of the view's /etc/passwd and /etc/group; "" is root
	Terminal bool     // a new terminal is its standard input, output and error
	Tmp      bool     // mount an empty /tmp; not for Exec
	Mounted  []Mount  // what is mounted into the view; not for Exec

	Rows, Columns uint16 // size of the terminal; 0: not known
}

// Mount is something that is mounted into the view.
type Mount struct {
	Target   string // absolute and clean, in the view
	Source   string // path of the host; "" is a tmpfs
	ReadOnly bool
	Options  []string // of a tmpfs, as mount(8) takes them
}

// Exit codes for failures that are not the command's own, as Docker has them.
const (
	CodeFailed      = 125 // plyfs could not do it
	CodeNotRunnable = 126 // the command is there, and cannot be executed
	CodeNotFound    = 127 // there is no such command
)

// Error is why a command was not run.
type Error struct {
	Code int    // one of the codes above
	Text string // what, which path, why
}

func (e *Error) Error() string { return e.Text }

func errorf(code int, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}
