package main

import (
	"fmt"
	"path/filepath"
)

// scenario is a fresh mount of one data set and the steps done on it in order.
type scenario struct {
	name string
	data string // name of the data set; equal names share it
	make func(dir string) (*data, error)
	// ownPlain gives the plain directory's round a copy of its own, because
	// the steps change the tree, and others, or the next round, begin with the same.
	ownPlain bool
	// cold empties the machine's caches before the mount.
	cold bool
	// io adds the columns of modes that differ in data only.
	io    bool
	steps []step
}

// rowName is how --rows knows step i.
func (s *scenario) rowName(i int) string { return s.name + ": " + s.steps[i].name }

// step is one row of the result.
type step struct {
	name string
	req  func(d *data) request
	// per is by how many operations the time is divided; 0 is 1.
	per int
	// kind says what is measured: time, unless set.
	kind kind
}

type kind int

const (
	kindTime    kind = iota
	kindMount        // how long mounting took
	kindMemory       // memory of the daemon
	kindForget       // the same after the kernel has dropped what it knew
	kindPrepare      // not measured: makes ready what follows
)

// sizes are the amounts that --quick makes smaller.
type sizes struct {
	source, repo, unpack, lower, create, names int // files
	layered, big                               int // files
	data                                       int64
	random, transactions, copies               int
	depths                                     []int
}

var (
	fullSizes = sizes{
		source: 11000, repo: 5000, unpack: 5000, lower: 5000, create: 4000, names: 20000,
		layered: 10000, big: 200000, data: 512 << 20, random: 16384, transactions: 200, copies: 2000,
		depths: []int{1, 10, 100, 500},
	}
	quickSizes = sizes{
		source: 1500, repo: 600, unpack: 600, lower: 600, create: 500, names: 2000,
		layered: 1500, big: 20000, data: 32 << 20, random: 2048, transactions: 15, copies: 200,
		depths: []int{1, 10, 100, 500},
	}
)

// program makes a request that runs argv at the root of the view.
func program(argv ...string) func(*data) request {
	return func(*data) request { return request{Op: "exec", Argv: argv} }
}

// named makes a request of an operation on all names of the data set.
func named(op string, clients int) func(*data) request {
	return func(d *data) request { return request{Op: op, Names: d.names, Clients: clients} }
}

func fixed(r request) func(*data) request { return func(*data) request { return r } }

// scenarios lists everything that is measured, in the order of the table.
func scenarios(z sizes) []scenario {
	source := func(name string, steps ...step) scenario {
		return scenario{name: name, data: "source", make: sourceTree(z.source), steps: steps}
	}
	cold := func(s scenario) scenario { s.cold = true; return s }
	list := []scenario{
		source("find",
			step{name: "names, first", req: program("find", ".")},
			step{name: "names, again", req: program("find", ".")},
			step{name: "names, third", req: program("find", ".")}),
		source("find attr",
			step{name: "first", req: program("find", ".", "-size", "+1000000k")},
			step{name: "again", req: program("find", ".", "-size", "+1000000k")}),
		source("stat",
			step{name: "first", req: named("stat", 1), per: z.source},
			step{name: "again", req: named("stat", 1), per: z.source},
			step{name: "missing, first", req: named("missing", 1), per: z.source},
			step{name: "missing, again", req: named("missing", 1), per: z.source}),
		source("open",
			step{name: "open+read, first", req: named("openread", 1), per: z.source},
			step{name: "open+read, again", req: named("openread", 1), per: z.source},
			step{name: "open, again", req: named("open", 1), per: z.source}),
		source("grep -r",
			step{name: "first", req: program("grep", "-r", "no such words in here", ".")},
			step{name: "again", req: program("grep", "-r", "no such words in here", ".")},
			step{name: "third", req: program("grep", "-r", "no such words in here", ".")}),
		source("tar",
			step{name: "first", req: program("tar", "cf", "-", ".")},
			step{name: "again", req: program("tar", "cf", "-", ".")}),
		cold(source("find cold",
			step{name: "names", req: program("find", ".")})),
		cold(source("grep cold",
			step{name: "-r", req: program("grep", "-r", "no such words in here", ".")})),
		{name: "small files", data: "empty", make: blobs(), steps: []step{
			{name: "create 4 KiB", req: fixed(request{Op: "create", Sub: "s", N: z.create, Size: 4096}), per: z.create},
			{name: "rename", req: fixed(request{Op: "rename", Sub: "s", N: z.create}), per: z.create},
			{name: "unlink", req: fixed(request{Op: "unlink", Sub: "s", N: z.create}), per: z.create},
			{name: "mkdir", req: fixed(request{Op: "mkdir", Sub: "s", N: z.create}), per: z.create},
		}},
		{name: "unpack", data: "archive", make: archive(z.unpack), steps: []step{
			{name: "tar x", req: func(d *data) request {
				return request{Op: "exec", Argv: []string{"tar", "xf", filepath.Join(filepath.Dir(d.names), "tree.tar")}}
			}},
			{name: "rm -r", req: program("rm", "-r", "area0", "area1", "area2", "area3", "area4", "area5", "area6")},
		}},
		{name: "lower tree", data: "lower", make: sourceTree(z.lower), ownPlain: true, steps: []step{
			{name: "chmod -R", req: program("chmod", "-R", "go-rwx", ".")},
			{name: "rm -r", req: program("rm", "-r", "area0", "area1", "area2", "area3", "area4", "area5", "area6")},
		}},
		{name: "git status", data: "repository", make: repository(z.repo), ownPlain: true, steps: []step{
			{name: "first", req: program("git", "-c", "safe.directory=*", "status", "--short")},
			{name: "again", req: program("git", "-c", "safe.directory=*", "status", "--short")},
			{name: "third", req: program("git", "-c", "safe.directory=*", "status", "--short")},
		}},
		{name: "sqlite", data: "empty", make: blobs(), steps: []step{
			{name: "a transaction", per: z.transactions, req: fixed(request{Op: "exec", Argv: []string{"sqlite3", "db", sqlLoad(z.transactions)}})},
		}},
	}
	list = append(list, dataScenarios(z)...)
	for _, depth := range z.depths {
		unit := "layers"
		if depth == 1 {
			unit = "layer"
		}
		files := max(z.layered, depth)
		list = append(list, scenario{
			name: fmt.Sprintf("%d %s", depth, unit), data: fmt.Sprintf("layers%d", depth), make: manyLayers(depth, files), steps: []step{
				{name: "mount", kind: kindMount},
				{name: "find attr, first", req: program("find", ".", "-size", "+1000000k")},
				{name: "find attr, again", req: program("find", ".", "-size", "+1000000k")},
				{name: "stat", req: named("stat", 1), per: files},
				{name: "missing", req: named("missing", 1), per: files},
			},
		})
		if depth == 100 {
			list = append(list, scenario{name: "100 layers cold", data: "layers100", make: manyLayers(depth, files), cold: true, steps: []step{
				{name: "find", req: program("find", ".")},
			}})
		}
	}
	list = append(list,
		scenario{name: fmt.Sprintf("%d entries", z.big), data: "big", make: bigDirectory(z.big), steps: []step{
			{name: "list, first", req: fixed(request{Op: "list", Sub: "big"})},
			{name: "list, again", req: fixed(request{Op: "list", Sub: "big"})},
			{name: "ls -l, first", req: program("ls", "-l", "big")},
			{name: "ls -l, again", req: program("ls", "-l", "big")},
			{name: "daemon memory", kind: kindMemory},
			{name: "daemon memory, forgotten", kind: kindForget},
		}},
		scenario{name: "eight clients", data: "source", make: sourceTree(z.source), ownPlain: true, steps: []step{
			{name: "stat, first", req: named("stat", 8), per: z.source},
			{name: "stat, again", req: named("stat", 8), per: z.source},
			{name: "open+read, first", req: named("openread", 8), per: z.source},
			{name: "open+read, again", req: named("openread", 8), per: z.source},
			{name: "create 4 KiB", req: fixed(request{Op: "create", Sub: "s", N: z.create, Size: 4096, Clients: 8}), per: z.create},
			{name: "rename", req: fixed(request{Op: "rename", Sub: "s", N: z.create, Clients: 8}), per: z.create},
			{name: "unlink", req: fixed(request{Op: "unlink", Sub: "s", N: z.create, Clients: 8}), per: z.create},
			{name: "find", req: fixed(request{Op: "exec", Argv: []string{"find", "."}, Clients: 8})},
		}},
	)
	return list
}

// dataScenarios are the ones in which bytes count, not names.
func dataScenarios(z sizes) []scenario {
	const (
		k = 1 << 10
		m = 1 << 20
	)
	blob := func(name string, cold bool, steps ...step) scenario {
		return scenario{name: name, data: "blob", make: blobs(z.data), cold: cold, io: true, steps: steps}
	}
	return []scenario{
		blob("read cold", true,
			step{name: "sequential", req: fixed(request{Op: "read", Sub: "blob0", Size: z.data, Piece: 128 * k})}),
		blob("read", false,
			step{name: "sequential, first", req: fixed(request{Op: "read", Sub: "blob0", Size: z.data, Piece: 128 * k})},
			step{name: "sequential, again", req: fixed(request{Op: "read", Sub: "blob0", Size: z.data, Piece: 128 * k})},
			step{name: "mapped", req: fixed(request{Op: "mapread", Sub: "blob0", Size: z.data})},
			step{name: "random 4 KiB", per: z.random, req: fixed(request{Op: "random", Sub: "blob0", Size: z.data, Piece: 4 * k, N: z.random})},
			step{name: "random 4 KiB, 8 clients", per: z.random, req: fixed(request{Op: "random", Sub: "blob0", Size: z.data, Piece: 4 * k, N: z.random, Clients: 8})}),
		{name: "write", data: "empty", make: blobs(), io: true, steps: []step{
			{name: "4 KiB pieces", req: fixed(request{Op: "write", Sub: "w", Size: z.data / 4, Piece: 4 * k})},
			{name: "1 MiB pieces, fsync", req: fixed(request{Op: "write", Sub: "x", Size: z.data / 2, Piece: m, Sync: true})},
			{name: "random 4 KiB, fsync", per: z.random, req: fixed(request{Op: "random", Sub: "x0", Size: z.data / 2, Piece: 4 * k, N: z.random, Sync: true})},
			{name: "random 4 KiB, fsync, 8 clients", per: z.random, req: fixed(request{Op: "random", Sub: "x0", Size: z.data / 2, Piece: 4 * k, N: z.random, Clients: 8, Sync: true})},
		}},
		{name: "copy-up", data: "copies", make: manyLayers(1, z.copies), ownPlain: true, steps: []step{
			{name: "append to small files", req: named("append", 1), per: z.copies},
		}},
		{name: "copy-up 16 MiB", data: "blob16", make: blobs(16*m, 16*m, 16*m, 16*m), ownPlain: true, io: true, steps: []step{
			{name: "append", req: named("append", 1), per: 4},
		}},
		{name: "big lower file", data: "bigfiles", make: blobs(z.data/2, z.data/2, z.data/2), ownPlain: true, steps: []step{
			{name: "chmod", req: fixed(request{Op: "chmod", Sub: "blob0"})},
			{name: "append", req: fixed(request{Op: "append", Sub: "blob1"})},
			{name: "O_TRUNC", req: fixed(request{Op: "truncate", Sub: "blob2"})},
		}},
	}
}

// sqlLoad is a script of n small transactions, each synced.
func sqlLoad(n int) string {
	sql := "pragma synchronous=full; create table t(id integer primary key, v text);"
	for i := range n {
		sql += fmt.Sprintf("insert into t(v) values('value %d of a small load');", i)
	}
	return sql
}
