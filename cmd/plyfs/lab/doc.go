// Package lab shows how union filesystems behave: a tour (plyfs demo), and exercises that
// are set up, done in a shell, and checked (plyfs lab).
//
// An [Exercise] is data: its layers, the commands that mount them, the task, goals that look
// at the directories, a model solution. [Run] is the same for all of them. Everything happens in a
// [stage], a temporary directory that is unmounted and removed whatever happens, and everything
// is done by the commands that are printed: the program itself, found as plyfs on the
// path, and those of any system.
//
// To add one: write it into the file of its family, name it in [List], and it is tested with the others.
package lab
