package graft

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

// Two containers count up in one database on a volume they share, in the journal modes that
// sharing allows. Each transaction reads and writes, so that one lost update shows in the sum.
// PLYFS_TORTURE_TIME says for how long; without it for a few seconds.
func TestSharedSQLiteContainersReal(t *testing.T) {
	harness.NeedRoot(t)
	if os.Getenv("PLYFS_REAL") != "1" {
		t.Skip("PLYFS_REAL=1 runs it")
	}
	limit := 5 * time.Second
	if d, err := time.ParseDuration(os.Getenv("PLYFS_TORTURE_TIME")); err == nil {
		limit = d
	}
	dir := harness.Dir(t)
	t.Setenv("PLYFS_ROOT", dir+"/store")
	plyfs(t, "image", "load", "--name", "db:1", sqliteImage(t, dir+"/image"))
	for _, journal := range []string{"delete", "wal"} {
		const sql = `sqlite3 -cmd ".timeout 60000" /data/db `
		run := func(name, script string) string {
			out, err := harness.Run("run", "--rm", "--name", name, "-v", journal+":/data", "db:1", "sh", "-ec", script)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			return strings.TrimSpace(out)
		}
		run("init", sql+`"PRAGMA journal_mode=`+journal+`; CREATE TABLE t(n INTEGER); INSERT INTO t VALUES(0); CREATE TABLE log(who TEXT);"`)
		if t.Failed() {
			return
		}
		var sum [2]int
		var wg sync.WaitGroup
		for i := range sum {
			wg.Go(func() {
				name := fmt.Sprint("c", i)
				out := run(name, fmt.Sprintf(`end=$(($(date +%%s) + %d)); n=0
					while [ $(date +%%s) -lt $end ]; do
						%s"BEGIN IMMEDIATE; UPDATE t SET n = n + 1; INSERT INTO log VALUES('%s'); COMMIT;"
						n=$((n + 1))
					done
					echo $n`, int(limit.Seconds()), sql, name))
				var err error
				if sum[i], err = strconv.Atoi(out); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		t.Logf("%s: %d and %d transactions", journal, sum[0], sum[1])
		if sum[0] == 0 || sum[1] == 0 {
			t.Error("one kept the other out")
		}
		want := fmt.Sprintf("%d|%d|ok", sum[0]+sum[1], sum[0]+sum[1])
		got := run("sum", sql+`"SELECT n, (SELECT count(*) FROM log), integrity_check FROM t, pragma_integrity_check"`)
		if got != want {
			t.Errorf("%s: the database has %q, want %q", journal, got, want)
		}
	}
}

// sqliteImage makes a root filesystem with a shell and sqlite3.
func sqliteImage(t *testing.T, root string) string {
	t.Helper()
	sqlite, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip(err)
	}
	files := map[string]string{"/bin/sqlite3": sqlite, "/bin/sh": busybox, "/bin/date": busybox}
	libs, err := exec.Command("ldd", sqlite).Output()
	if err != nil {
		t.Skip(err)
	}
	for _, f := range strings.Fields(string(libs)) {
		if filepath.IsAbs(f) {
			files[f] = f
		}
	}
	for to, from := range files {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(root+to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(root+to, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}
