// Package cell runs a command in a view: with namespaces of its own for mounts,
// processes, host name and IPC, and with the /proc, /dev and /sys that programs expect.
//
// It makes storage visible, as a container sees it; it is no sandbox. The network is
// the host's, nothing limits memory or processors, no system call is filtered. Root inside
// keeps the capabilities that Docker leaves to it, and is root of the host, unless plyfs
// runs rootless: then it is the user.
//
// [Start] runs this program again as process 1 of the new namespaces (init.go). That copy
// mounts, makes the view its root, becomes the user that is asked for and executes the command, which
// then is process 1. [Process.Exec] runs another command beside it, from a thread of this
// process that enters the namespaces and ends with the command.
//
// A program that calls Start begins its main with
//
//	cell.Init()
package cell
