package cell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// report is what a stage tells the process that started it. After the last one its end of
// the socket is closed: by the exec of the command, if all went well.
type report struct {
	Code  int    `json:"code,omitempty"` // with Error
	Error string `json:"error,omitempty"`
	PID   int    `json:"pid,omitempty"` // of the command that Exec started
	// A message with a descriptor, the master of the terminal, has no more in it.
}

const maxReport = 64 << 10

// reportPair returns the two ends of a socket for reports; messages keep their bounds.
func reportPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "reports"), os.NewFile(uintptr(pair[1]), "reports"), nil
}

func sendReport(sock int, r *report, fd int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	return unix.Sendmsg(sock, b[:min(len(b), maxReport)], oob, nil, unix.MSG_NOSIGNAL)
}

// receiveReport returns the next message, and the descriptor that came with it, if any;
// io.EOF when there is none to come.
func receiveReport(sock int) (*report, *os.File, error) {
	buf, oob := make([]byte, maxReport), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.ECONNRESET || err == nil && n == 0:
		return nil, nil, io.EOF
	case err != nil:
		return nil, nil, os.NewSyscallError("recvmsg", err)
	}
	var file *os.File
	if fd, err := takeRights(oob[:oobn]); err == nil {
		file = os.NewFile(uintptr(fd), "terminal")
	}
	var r report
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		if file != nil {
			file.Close()
		}
		return nil, nil, fmt.Errorf("report of the container's first process: %w", err)
	}
	return &r, file, nil
}

var errNoRights = errors.New("no descriptor in the message")

// takeRights returns the one descriptor of a control message.
func takeRights(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, extra := range fds[1:] {
			unix.Close(extra)
		}
		return fds[0], nil
	}
	return -1, errNoRights
}

// specFile returns a file in memory that holds v.
func specFile(v any) (*os.File, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("plyfs-spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	if _, err = f.Write(b); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
