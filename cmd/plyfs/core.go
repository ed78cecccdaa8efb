package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// coreStat is what the union says of itself, as far as this command prints it.
type coreStat struct {
	Unfinished      int   `json:"unfinished"`
	UnfinishedBytes int64 `json:"unfinished_bytes"` // -1: not known
	Settling        *struct {
		Done, Total int64
	} `json:"settling"`
	CopyUps cow.Sums `json:"copyups"`
}

func printCore(w io.Writer, raw json.RawMessage) {
	var st coreStat
	if len(raw) == 0 || json.Unmarshal(raw, &st) != nil {
		return
	}
	total := st.CopyUps.Total
	fmt.Fprintf(w, "copied up\t%d\n", total.Count)
	methods := slices.Collect(maps.Keys(st.CopyUps.ByMethod))
	slices.SortFunc(methods, func(a, b cow.Method) int { return cmp.Compare(a, b) })
	for _, m := range methods {
		s := st.CopyUps.ByMethod[m]
		fmt.Fprintf(w, "  %s\t%d, %s copied in %s\n", m, s.Count, bytesText(s.BytesCopied), s.Copy.Round(time.Microsecond))
	}
	if n := st.CopyUps.BytesFilled; n > 0 {
		fmt.Fprintf(w, "  around writes\t%s copied\n", bytesText(n))
	}
	if total.Failed > 0 {
		fmt.Fprintf(w, "  failed\t%d\n", total.Failed)
	}
	if st.Unfinished > 0 {
		fmt.Fprintf(w, "unfinished\t%s\n", st.rest())
	}
	if g := st.Settling; g != nil {
		fmt.Fprintf(w, "completing\t%s of %s\n", bytesText(g.Done), bytesText(g.Total))
	}
}

// rest says what is unfinished.
func (st *coreStat) rest() string {
	if st.UnfinishedBytes < 0 {
		return fmt.Sprintf("at least %d files", st.Unfinished)
	}
	return fmt.Sprintf("%d files, %s to copy", st.Unfinished, bytesText(st.UnfinishedBytes))
}

// askCore asks a mount what the union says of itself.
func askCore(path string) (*coreStat, error) {
	var st mountStat
	if err := ask(path, fusefs.CtlStat, &st); err != nil {
		return nil, err
	}
	core := new(coreStat)
	if len(st.Union.Core) == 0 {
		return core, nil
	}
	return core, json.Unmarshal(st.Union.Core, core)
}
