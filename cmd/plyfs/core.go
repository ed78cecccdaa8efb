package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// coreStat is what the union says of itself, as far as this command prints it.
type coreStat struct {
	Unfinished      int   `json:"unfinished"`
	UnfinishedBytes int64 `json:"unfinished_bytes"` // -1: not known
	Settling        *struct {
		Done, Total int64
	} `json:"settling"`
	CopyUps cow.Sums       `json:"copyups"`
	Ways    []overlay.Ways `json:"ways"`

	Threshold int64 `json:"threshold"`
}

func printCore(w io.Writer, raw json.RawMessage) {
	var st coreStat
	if len(raw) == 0 || json.Unmarshal(raw, &st) != nil {
		return
	}
	for _, way := range st.Ways {
		fmt.Fprintf(w, "copy-up\tfrom %s\n", way)
	}
	if st.Threshold >= 0 && len(st.Ways) > 0 {
		fmt.Fprintf(w, "by range\tfrom %s\n", bytesText(st.Threshold))
	}
	total := st.CopyUps.Total
	fmt.Fprintf(w, "copied up\t%d\n", total.Count)
	if total.Count > 0 {
		fmt.Fprintf(w, "  in all\t%s\n", sumText(total))
	}
	for _, m := range slices.Sorted(maps.Keys(st.CopyUps.ByMethod)) {
		fmt.Fprintf(w, "  by %s\t%d: %s\n", m, st.CopyUps.ByMethod[m].Count, sumText(st.CopyUps.ByMethod[m]))
	}
	for _, c := range slices.Sorted(maps.Keys(st.CopyUps.ByCause)) {
		fmt.Fprintf(w, "  for %s\t%d: %s\n", c, st.CopyUps.ByCause[c].Count, sumText(st.CopyUps.ByCause[c]))
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

// sumText says what copy-ups of one kind have cost together.
func sumText(s cow.Sum) string {
	text := fmt.Sprintf("%s asked for, %s copied, %s in the upper, in %s, the longest %s",
		bytesText(s.BytesAsked), bytesText(s.BytesCopied), bytesText(s.UpperBytes), s.Copy.Round(time.Microsecond), s.Longest.Round(time.Microsecond))
	if s.Wait > 0 {
		text += fmt.Sprintf(", after waiting %s", s.Wait.Round(time.Microsecond))
	}
	return text
}

// rest says what is unfinished.
func (st *coreStat) rest() string {
	if st.UnfinishedBytes < 0 {
		return fmt.Sprintf("at least %d files", st.Unfinished)
	}
	return fmt.Sprintf("%d files, %s to copy", st.Unfinished, bytesText(st.UnfinishedBytes))
}

// askCore asks a mount what the union says of itself.
func askCore(p place) (*coreStat, error) {
	var st mountStat
	if err := ask(p, fusefs.CtlStat, &st); err != nil {
		return nil, err
	}
	core := new(coreStat)
	if len(st.Union.Core) == 0 {
		return core, nil
	}
	return core, json.Unmarshal(st.Union.Core, core)
}
