package image

import (
	"fmt"
	"runtime"
	"sort"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Platform is what an image is made for.
type Platform struct {
	OS, Architecture, Variant string
	// Asked says that the user named it, so that nothing else will do.
	Asked bool
}

// Host returns the platform of this machine.
func Host() *Platform { return &Platform{OS: "linux", Architecture: runtime.GOARCH} }

// String returns OS/ARCHITECTURE[/VARIANT].
func (p *Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ParsePlatform reads OS/ARCHITECTURE[/VARIANT], or an architecture alone. Other names
// that people have for architectures are understood.
func ParsePlatform(s string) (*Platform, error) {
	f := strings.Split(s, "/")
	if len(f) == 1 {
		f = []string{"linux", f[0]}
	}
	for _, w := range f {
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
			f = nil
		}
	}
	if len(f) < 2 || len(f) > 3 {
		return nil, fmt.Errorf("%q is no platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64", s)
	}
	p := &Platform{OS: strings.ToLower(f[0]), Architecture: strings.ToLower(f[1]), Asked: true}
	if len(f) == 3 {
		p.Variant = strings.ToLower(f[2])
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "i386", "i686":
		p.Architecture = "386"
	}
	return p, nil
}

// fitness says how well an image for have runs on p: 0 not at all, more is better.
func (p *Platform) fitness(os, arch, variant string) int {
	if os != p.OS || arch != p.Architecture {
		return 0
	}
	want := p.Variant
	if arch == "arm64" { // there is one, and it may be left out
		if want == "v8" {
			want = ""
		}
		if variant == "v8" {
			variant = ""
		}
	}
	switch {
	case variant == want:
		return 100
	case p.Variant == "" && arch == "arm":
		return 50 + level(variant) // what runs is not known: the newest, as other tools do
	case p.Variant == "":
		return 50 - level(variant) // amd64/v3 does not run everywhere
	case variant == "":
		return 40
	case level(variant) < level(want):
		return 20 + level(variant) // arm/v6 runs on arm/v7
	}
	return 0
}

// Runs reports whether an image for that platform runs on p.
func (p *Platform) Runs(os, arch, variant string) bool { return p.fitness(os, arch, variant) > 0 }

// level is the number in a variant.
func level(variant string) int {
	n := 0
	if _, err := fmt.Sscanf(variant, "v%d", &n); err != nil || n < 0 || n > 15 {
		return 0
	}
	return n
}

// choose picks the manifest for the platform out of an index.
func choose(list []v1.Descriptor, p *Platform) (*v1.Descriptor, error) {
	var best *v1.Descriptor
	fit := 0
	var have []string
	for i := range list {
		d := &list[i]
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() || d.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation, a signature
		}
		n := 1
		if d.Platform != nil {
			n = 2 * p.fitness(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant)
			have = append(have, d.Platform.String())
		}
		if n > fit {
			best, fit = d, n
		}
	}
	if best == nil {
		sort.Strings(have)
		if len(have) == 0 {
			return nil, fmt.Errorf("no image in it")
		}
		return nil, fmt.Errorf("no image for %s; there is %s", p, strings.Join(have, ", "))
	}
	return best, nil
}

// check refuses an image that is not for a platform the user named.
func (p *Platform) check(config []byte) error {
	if !p.Asked {
		return nil
	}
	c, err := parseRootFS(config)
	if err != nil {
		return err
	}
	if p.fitness(c.OS, c.Architecture, c.Variant) == 0 {
		have := &Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
		return fmt.Errorf("the image is for %s, not for %s", have, p)
	}
	return nil
}
