package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

var versionCmd = command{
	name:  "version",
	short: "print the version",
	run: func(c *command, args []string) error {
		f := c.flags()
		asJSON := f.Bool("json", false, "print JSON")
		if err := c.parse(f, args, 0, 0); err != nil {
			return err
		}
		return printVersion(*asJSON)
	},
}

type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

// getVersion reads what the Go tool wrote into the binary.
func getVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}

func printVersion(asJSON bool) error {
	v := getVersion()
	if asJSON {
		return printJSON(v)
	}
	fmt.Fprintf(stdout, "plyfs version %s (%s, %s)\n", v.Version, v.Go, v.System)
	return nil
}
