package layer

import (
	"os"
	"strings"
)

// InitialUsers says whether user ids here are those of the machine: this is the first user namespace, which has all of them
// (user_namespaces(7)). An error is one of reading /proc/self/uid_map, which a kernel without namespaces has not.
func InitialUsers() (bool, error) {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295", err
}
