package mounts

import "testing"

func TestTable(t *testing.T) {
	table, err := Below("/")
	if err != nil {
		t.Fatal(err)
	}
	proc := false
	for _, m := range table {
		proc = proc || m.Point == "/proc" && m.Type == "proc" && m.ID != ""
	}
	if !proc {
		t.Errorf("no /proc in %+v", table)
	}
	if below, err := Below("/proc/self/fd"); err != nil || len(below) > 0 {
		t.Errorf("%+v, %v: nothing is mounted there", below, err)
	}
}

func TestUnoctal(t *testing.T) {
	if got := unoctal(`/a\040b\134c\011d\012`); got != "/a b\\c\td\n" {
		t.Errorf("%q", got)
	}
}
