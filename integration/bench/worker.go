package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// workerVariable marks the copy of this program that runs the operations.
const workerVariable = "PLYFS_BENCH_WORKER"

// request asks the worker for one timed operation. Which fields count depends on Op (ops.go).
type request struct {
	Op      string   `json:"op"`
	Dir     string   `json:"dir"`               // root of the view
	Sub     string   `json:"sub,omitempty"`     // a path below Dir
	Names   string   `json:"names,omitempty"`   // a file outside the view: names relative to Dir, one a line
	Argv    []string `json:"argv,omitempty"`    // a program to run in Dir
	N       int      `json:"n,omitempty"`       // how often
	Size    int64    `json:"size,omitempty"`    // of a file, in bytes
	Piece   int64    `json:"piece,omitempty"`   // of one read or write, in bytes
	Clients int      `json:"clients,omitempty"` // threads that share the work; 0 is 1
	Sync    bool     `json:"sync,omitempty"`    // fsync at the end
}

// reply is what came of it.
type reply struct {
	Nanos int64  `json:"nanos"`
	Err   string `json:"err,omitempty"`
}

// worker is the client of the filesystems: a process of its own, so that one
// that hangs can be given up, and pinned or not as the mode wants it.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWorker(cpu int) (*worker, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: exec.Command(exe)}
	w.cmd.Env = append(os.Environ(), workerVariable+"=1")
	w.cmd.Stderr = os.Stderr
	// A group of its own: a key press that interrupts is the benchmark's to handle.
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	return w, pinned(cpu, w.cmd.Start)
}

// pinned calls f on processor cpu, or anywhere when cpu is below zero.
func pinned(cpu int, f func() error) error {
	if cpu < 0 {
		return f()
	}
	return rig.OnCPU(cpu, f)
}

func (w *worker) kill() {
	unix.Kill(-w.cmd.Process.Pid, unix.SIGKILL)
	w.in.Close()
	w.cmd.Wait()
}

var errTimeout = errors.New("took too long")

// do runs r in the worker. After errTimeout the worker must be killed.
func (w *worker) do(r *request, limit time.Duration) (nanos float64, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if _, err := w.in.Write(append(b, '\n')); err != nil {
		return 0, fmt.Errorf("worker: %w", err)
	}
	type answer struct {
		line []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		line, err := w.out.ReadBytes('\n')
		done <- answer{line, err}
	}()
	select {
	case <-time.After(limit):
		return 0, errTimeout
	case a := <-done:
		if a.err != nil {
			return 0, fmt.Errorf("worker: %w", a.err)
		}
		var p reply
		if err := json.Unmarshal(a.line, &p); err != nil {
			return 0, fmt.Errorf("worker: %w", err)
		}
		if p.Err != "" {
			return 0, errors.New(p.Err)
		}
		return float64(p.Nanos), nil
	}
}

// serve is the worker's own loop. It holds nothing open in a view between requests.
func serve(in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var req request
		var p reply
		if err := json.Unmarshal(line, &req); err != nil {
			p.Err = err.Error()
		} else if took, err := perform(&req); err != nil {
			p.Err = fmt.Sprintf("%s: %v", req.Op, err)
		} else {
			p.Nanos = took.Nanoseconds()
		}
		b, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(b, '\n')); err != nil {
			return err
		}
	}
}
