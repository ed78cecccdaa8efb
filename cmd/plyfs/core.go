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
	Unfinished      int      `json:"unfinished"`
	UnfinishedBytes int64    `json:"unfinished_bytes"`
	CopyUps         cow.Sums `json:"copyups"`
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
	if total.Failed > 0 {
		fmt.Fprintf(w, "  failed\t%d\n", total.Failed)
	}
	if st.Unfinished > 0 {
		fmt.Fprintf(w, "unfinished\t%d files, %s to copy\n", st.Unfinished, bytesText(st.UnfinishedBytes))
	}
}

// remaining says how much of a mount is partly copied; "" if it cannot be known.
func remaining(path string) string {
	var st mountStat
	var core coreStat
	if ask(path, fusefs.CtlStat, &st) != nil || json.Unmarshal(st.Union.Core, &core) != nil || core.Unfinished == 0 {
		return ""
	}
	return fmt.Sprintf(": %d files, %s to go", core.Unfinished, bytesText(core.UnfinishedBytes))
}
