package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// customFlags defines the flags that ask for cases instead of the sweep. The function it returns reads
// them: nil if there is none.
func customFlags(f *pflag.FlagSet) func() (*bench.Custom, error) {
	var c bench.Custom
	f.StringSliceVar(&c.Patterns, "pattern", nil, "instead of the sweep: how files are changed, some of "+strings.Join(bench.Patterns, ", "))
	sizes := f.StringSlice("size", nil, "instead of the sweep: sizes of the files, else 1M")
	asked := f.StringSlice("write", nil, "and how many bytes are written, else 1")
	offsets := f.StringSlice("offset", nil, "and where, else 0; of truncate, how much is left")
	f.IntSliceVar(&c.Depths, "layers", nil, "and over how many layers, else 1")
	f.IntSliceVar(&c.Jobs, "jobs", nil, "and how many files at once, else 1")
	f.IntVar(&c.Files, "files", 0, "and how many files, else as many as at once")
	f.BoolVar(&c.Sparse, "sparse", false, "and files that are holes, but for their ends")
	f.BoolVar(&c.Cold, "cold", false, "and with cold caches")
	f.BoolVar(&c.Apart, "apart", false, "and with the layers on another filesystem than the upper")
	names := []string{"pattern", "size", "write", "offset", "layers", "jobs", "files", "sparse", "cold", "apart"}
	return func() (*bench.Custom, error) {
		given := false
		for _, name := range names {
			given = given || f.Changed(name)
		}
		if !given {
			return nil, nil
		}
		if f.Changed("files") && c.Files < 1 {
			return nil, fmt.Errorf("--files: %d: want 1 or more", c.Files)
		}
		for _, list := range []struct {
			flag string
			from []string
			to   *[]int64
		}{{"size", *sizes, &c.Sizes}, {"write", *asked, &c.Asked}, {"offset", *offsets, &c.Offsets}} {
			for _, text := range list.from {
				n, err := sample.ParseBytes(text)
				if err != nil {
					return nil, fmt.Errorf("--%s: %w", list.flag, err)
				}
				*list.to = append(*list.to, n)
			}
		}
		return &c, nil
	}
}
