package store

import (
	"math/rand/v2"
	"strconv"
)

// Words for containers that nobody named.
var (
	adjectives = []string{"amber", "brisk", "calm", "dapper", "eager", "fair", "gentle", "hazel", "ivory", "jolly", "keen", "lucid", "mellow", "nimble", "olive", "plain", "quiet", "rosy", "steady", "tidy", "upright", "vivid", "warm", "young"}
	nouns      = []string{"alder", "birch", "cedar", "dahlia", "elm", "fern", "gorse", "heron", "iris", "juniper", "kestrel", "larch", "maple", "nettle", "osprey", "poplar", "quail", "rowan", "sorrel", "thrush", "umbel", "violet", "willow", "yarrow"}
)

// madeUpName returns a name; from the tenth try on, one with a number, so that there is no
// end of them.
func madeUpName(try int) string {
	name := adjectives[rand.IntN(len(adjectives))] + "_" + nouns[rand.IntN(len(nouns))]
	if try >= 10 {
		name += "_" + strconv.Itoa(rand.IntN(1000*try))
	}
	return name
}
