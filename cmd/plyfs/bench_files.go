package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/outfile"
)

// benchFiles are where the results of a benchmark go, besides its table.
type benchFiles struct {
	flags   []string // in this order
	paths   map[string]*string
	writers map[string]func(*bench.Report, io.Writer) error
	svg     *string
	open    map[string]*outfile.File
}

// benchFileFlags defines the flags that name files.
func benchFileFlags(f *pflag.FlagSet) *benchFiles {
	b := &benchFiles{paths: map[string]*string{}, writers: map[string]func(*bench.Report, io.Writer) error{}, open: map[string]*outfile.File{}}
	for _, kind := range []struct {
		flag, usage string
		write       func(*bench.Report, io.Writer) error
	}{
		{"json", "write all results as JSON to this file; - is standard output, instead of the table", func(rep *bench.Report, w io.Writer) error { return printJSONTo(w, rep) }},
		{"csv", "as CSV", (*bench.Report).WriteCSV},
		{"gobench", "as Go benchmarks, for benchstat", (*bench.Report).WriteGoBench},
		{"html", "as one HTML page with plots", (*bench.Report).WriteHTML},
	} {
		b.flags = append(b.flags, kind.flag)
		b.paths[kind.flag], b.writers[kind.flag] = f.String(kind.flag, "", kind.usage), kind.write
	}
	b.svg = f.String("svg", "", "the plots alone, as files in this directory")
	return b
}

// check finds out, before hours of measuring, whether all of them can be written.
func (b *benchFiles) check() error {
	for i, flag := range b.flags {
		if *b.paths[flag] == "" {
			continue
		}
		file, err := outfile.Check(*b.paths[flag])
		if err != nil {
			return fmt.Errorf("bench: --%s: %w", flag, err)
		}
		for _, other := range b.flags[:i] {
			if b.open[other] != nil && b.open[other].Same(file) {
				return usagef("bench: --%s and --%s: both go to %s; give each a file of its own", other, flag, *b.paths[flag])
			}
		}
		b.open[flag] = file
	}
	if *b.svg != "" {
		if err := outfile.CheckDir(*b.svg); err != nil {
			return fmt.Errorf("bench: --svg: %w", err)
		}
	}
	return nil
}

// standard says whether one of them is standard output.
func (b *benchFiles) standard() bool {
	for _, file := range b.open {
		if file.Standard() {
			return true
		}
	}
	return false
}

// write writes all that it can. The error is the first.
func (b *benchFiles) write(rep *bench.Report) (err error) {
	keep := func(e error) {
		if e != nil && err == nil {
			err = fmt.Errorf("bench: %w", e)
		}
	}
	for _, flag := range b.flags {
		if b.open[flag] != nil {
			keep(b.open[flag].Write(func(w io.Writer) error { return b.writers[flag](rep, w) }))
		}
	}
	if *b.svg != "" {
		plots, e := rep.SVG()
		if e == nil {
			e = outfile.WriteDir(*b.svg, plots)
		}
		keep(e)
	}
	return err
}
