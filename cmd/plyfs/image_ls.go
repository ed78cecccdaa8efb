package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/plyfs/plyfs/layer/store"
)

var imageLsCmd = command{
	name:  "image ls",
	short: "list the images",
	run:   runImageLs,
}

var imageInspectCmd = command{
	name:  "image inspect",
	args:  "IMAGE...",
	short: "tell an image's layers and configuration",
	run:   runImageInspect,
}

func runImageLs(c *command, args []string) error {
	f := c.flags()
	quiet := f.BoolP("quiet", "q", false, "print only ids")
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	all, err := s.Images()
	if err != nil {
		return err
	}
	if *asJSON {
		if all == nil {
			all = []*store.Image{}
		}
		return printJSON(all)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	if !*quiet {
		fmt.Fprintln(t, "NAME\tID\tPLATFORM\tLAYERS\tSIZE\tCREATED")
	}
	for _, img := range all {
		if *quiet {
			fmt.Fprintln(t, img.ID)
			continue
		}
		names := img.Names
		if len(names) == 0 {
			names = []string{noName}
		}
		for _, n := range names {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", n, store.ShortID(img.ID), platformText(img), len(img.Layers), bytesText(img.Size), dateText(img.Created))
		}
	}
	return t.Flush()
}

func platformText(img *store.Image) string {
	s := img.OS + "/" + img.Arch
	if img.Variant != "" {
		s += "/" + img.Variant
	}
	return oneLine(s)
}

func dateText(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

func runImageInspect(c *command, args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	all := []*store.Image{}
	err = eachName(f.Args(), "image inspect", func(ref string) error {
		img, err := s.Image(ref)
		if err == nil {
			all = append(all, img)
		}
		return err
	})
	if *asJSON {
		if e := printJSON(all); err == nil {
			err = e
		}
		return err
	}
	for i, img := range all {
		if i > 0 {
			fmt.Fprintln(stdout)
		}
		printImage(img)
	}
	return err
}

// printImage prints what there is to know, for people.
func printImage(img *store.Image) {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	line := func(what, text string) {
		if text != "" {
			fmt.Fprintf(t, "%s\t%s\n", what, oneLine(text))
		}
	}
	line("image", strings.Join(img.Names, ", "))
	line("id", img.ID)
	line("platform", platformText(img))
	line("created", dateText(img.Created))
	line("loaded", dateText(img.Loaded)+"  "+img.Source)
	line("manifest", img.Manifest)
	for _, d := range img.Digests {
		if d != img.Manifest {
			line("digest", d)
		}
	}
	for _, e := range img.Config.Env {
		line("env", e)
	}
	line("entrypoint", quoteAll(img.Config.Entrypoint))
	line("cmd", quoteAll(img.Config.Cmd))
	line("working dir", img.Config.WorkingDir)
	line("user", img.Config.User)
	line("volumes", strings.Join(sortedKeys(img.Config.Volumes), " "))
	line("ports", strings.Join(sortedKeys(img.Config.ExposedPorts), " "))
	line("stop signal", img.Config.StopSignal)
	line("size", bytesText(img.Size))
	for i, l := range img.Layers {
		what := ""
		if i == 0 {
			what = "layers"
		}
		fmt.Fprintf(t, "%s\t%s  %8s  %6d entries  %s\n", what, store.ShortID(l.DiffID), bytesText(l.Size), l.Files, l.Dir)
		for _, n := range l.Notes {
			fmt.Fprintf(t, "\t  %s\n", oneLine(n))
		}
	}
	t.Flush()
}

func quoteAll(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; w == "" || strings.ContainsAny(w, " \t\n\"'\\$") {
			out[i] = fmt.Sprintf("%q", w)
		}
	}
	return strings.Join(out, " ")
}

func sortedKeys(m map[string]struct{}) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
