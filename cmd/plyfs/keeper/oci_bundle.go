package keeper

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// The parts of config.json (OCI runtime specification) that are used here.
type (
	ociConfig struct {
		Version  string     `json:"ociVersion"`
		Process  ociProcess `json:"process"`
		Root     ociRoot    `json:"root"`
		Hostname string     `json:"hostname,omitempty"`
		Mounts   []ociMount `json:"mounts"`
		Linux    ociLinux   `json:"linux"`
	}
	ociProcess struct {
		Terminal        bool                `json:"terminal"`
		ConsoleSize     *ociSize            `json:"consoleSize,omitempty"`
		User            ociUser             `json:"user"`
		Args            []string            `json:"args"`
		Env             []string            `json:"env"`
		Cwd             string              `json:"cwd"`
		Capabilities    map[string][]string `json:"capabilities"`
		NoNewPrivileges bool                `json:"noNewPrivileges"`
	}
	ociSize struct {
		Height uint16 `json:"height"`
		Width  uint16 `json:"width"`
	}
	ociUser struct {
		UID            uint32   `json:"uid"`
		GID            uint32   `json:"gid"`
		AdditionalGids []uint32 `json:"additionalGids,omitempty"`
		Umask          uint32   `json:"umask"`
	}
	ociRoot struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	}
	ociMount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	ociLinux struct {
		Namespaces    []ociNamespace `json:"namespaces"`
		MaskedPaths   []string       `json:"maskedPaths"`
		ReadonlyPaths []string       `json:"readonlyPaths"`
	}
	ociNamespace struct {
		Type string `json:"type"`
	}
)

// process describes the command of s to an OCI runtime; the view is mounted at root.
func process(s *cell.Spec, root string) (ociProcess, error) {
	who, err := cell.LookUp(s.User, root)
	if err != nil {
		return ociProcess{}, err
	}
	caps := cell.Capabilities()
	p := ociProcess{
		Terminal:     s.Terminal,
		User:         ociUser{UID: who.UID, GID: who.GID, AdditionalGids: who.Groups, Umask: 0o022},
		Args:         s.Args,
		Env:          cell.WithHome(s.Env, who.Home),
		Cwd:          filepath.Join("/", s.Dir),
		Capabilities: map[string][]string{"bounding": caps},
	}
	if s.Terminal && s.Rows != 0 && s.Columns != 0 {
		p.ConsoleSize = &ociSize{s.Rows, s.Columns}
	}
	if who.UID == 0 {
		p.Capabilities["effective"], p.Capabilities["permitted"] = caps, caps
	}
	return p, nil
}

// bundle describes a container to an OCI runtime: the same surroundings that package cell
// makes. With bindSys /sys is the host's own mount: a user namespace gets no other.
func bundle(s *cell.Spec, bindSys bool) (*ociConfig, error) {
	p, err := process(s, s.Root)
	if err != nil {
		return nil, err
	}
	sys := ociMount{"/sys", "sysfs", "sysfs", []string{"nosuid", "noexec", "nodev", "ro"}}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if bindSys {
		sys = ociMount{"/sys", "none", "/sys", []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	} else {
		pts = append(pts, "gid=5")
	}
	config := &ociConfig{
		Version:  "1.0.2",
		Process:  p,
		Root:     ociRoot{Path: s.Root},
		Hostname: s.Hostname,
		Mounts: []ociMount{
			{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{"/dev/pts", "devpts", "devpts", pts},
			{"/dev/shm", "tmpfs", "shm", []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{"/dev/mqueue", "mqueue", "mqueue", []string{"nosuid", "noexec", "nodev"}},
			sys,
		},
		Linux: ociLinux{
			Namespaces:    []ociNamespace{{"pid"}, {"ipc"}, {"uts"}, {"mount"}},
			MaskedPaths:   cell.Masked(),
			ReadonlyPaths: cell.Frozen(),
		},
	}
	if s.Tmp {
		config.Mounts = append(config.Mounts, ociMount{"/tmp", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "mode=1777"}})
	}
	for _, m := range s.Covered() {
		// From its source: where the view has it the runtime has already mounted something else.
		mount := ociMount{m.Target, "bind", m.Source, []string{"rbind"}}
		if m.Source == "" {
			mount = ociMount{m.Target, "tmpfs", "tmpfs", m.Options}
		}
		if m.ReadOnly {
			mount.Options = append(mount.Options, "ro")
		}
		config.Mounts = append(config.Mounts, mount)
	}
	return config, nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
