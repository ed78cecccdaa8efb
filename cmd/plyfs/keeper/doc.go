// Package keeper keeps a container while it runs.
//
// A running container has one daemon, started by run or start: the keeper. It holds the
// container's lock, serves the view, starts the command in it (package cell, or an OCI
// runtime), takes requests on a socket, and when the command has ended unmounts, completes the
// writable layer and writes down the exit code. If it is killed, the kernel kills the command
// with it and lets go of the lock: so the lock says whether a container runs, and nothing that was
// written down has to be believed.
//
// # The socket
//
// containers/NAME/control is a Unix socket of packets; each is a [Message] in JSON,
// with up to three descriptors. The process that starts the keeper has the first
// connection from the beginning: it hears when the command runs (with the terminal, if it has
// one), and again when it has ended. What any other is for is said by its first message:
//
//	await             answered when the command runs, or will not
//	exec              run another command in the container; answered as the first connection is
//	stop              stop the container; answered when it has ended, or does not end
//	pack              write the writable layer, as an archive, to the descriptor that comes along;
//	                  answered when that is done
//	look              run a process that looks at the view; answered when that has ended, and ends with the
//	                  connection
//	done              the view is not needed any more; the connection ends, with the keeper if that was only
//	                  needed for the view
//
// A container that does not run gets a keeper too while it is packed or looked at. That one runs no
// command, writes down no state, and ends with its last connection.
//
// On the first connection and after exec a signal message hands a signal to the command, after look to the process that looks. The
// end of the connection is the end of the interest, not of the command.
package keeper
