package lab

// Exercise is something to do with a small stack of layers, and what can be learned from it.
type Exercise struct {
	Name  string `json:"name"`
	Title string `json:"title"` // one line
	Root  bool   `json:"root"`  // only root can do it

	layers   []layer  // topmost first; nobody may change them
	outside  []layer  // other directories with something in them
	dirs     []string // empty directories
	uppers   []string // which of them take changes
	prepare  []string // commands that come before the mount
	mount    []string // commands that mount
	task     string
	try      []string // commands
	question string
	answer   string

	solution []step
	goals    []goal
	happened func(*state) string // what there is to say of what happened
	rule     string              // of the kernel's overlayfs

	missing func(dir string) error // why it cannot be done here
}

// goal is one thing that is to be reached.
type goal struct {
	text string
	hint string // what to do when it is not
	done func(*state) bool
}

// List returns all exercises, in the order in which to do them.
func List() []*Exercise {
	return []*Exercise{
		&layersExercise, &whiteoutExercise, &opaqueExercise,
		&rangeExercise, &chmodExercise, &linksExercise, &renameExercise,
		&containersExercise, &bindExercise, &hideExercise, &volumeExercise,
		&kernelExercise,
	}
}

// Find returns the exercise of a name, or nil.
func Find(name string) *Exercise {
	for _, e := range List() {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// says is for what happens in the same way everywhere.
func says(text string) func(*state) string { return func(*state) string { return text } }

// single are the directories of a stack with one mount, and its upper.
var (
	single      = []string{"upper", "work", "mnt"}
	singleUpper = []string{"upper"}
)
