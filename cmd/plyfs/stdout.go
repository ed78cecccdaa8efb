package main

import "os"

// stdout is standard output for what is printed line by line. It keeps the first error, and main reports it: an answer that
// a full disk cut off must not look like a whole one.
var stdout = &keptError{file: os.Stdout}

type keptError struct {
	file *os.File
	err  error
}

func (k *keptError) Write(p []byte) (int, error) {
	n, err := k.file.Write(p)
	if k.err == nil {
		k.err = err
	}
	return n, err
}
