package mountopt

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

func setDir(field *string, v string) error {
	path := Unescape(v)
	if path == "" {
		return errors.New("needs a path")
	}
	*field = path
	return nil
}

func appendDir(field *[]string, v string) error {
	path := unescapeCommas(v)
	if path == "" {
		return errors.New("needs a path")
	}
	*field = append(*field, path)
	return nil
}

func choose(field *string, v string, values ...string) error {
	if !slices.Contains(values, v) {
		return errors.New("want " + strings.Join(values[:len(values)-1], ", ") + " or " + values[len(values)-1])
	}
	*field = v
	return nil
}

// onOff reads the kernel's booleans; the bare word is on.
func onOff(field **bool, v string) error {
	on := v != "off"
	if on && v != "on" && v != "" {
		return errors.New("want on or off")
	}
	*field = &on
	return nil
}

func zeroOne(v string) (bool, error) {
	switch v {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, errors.New("want 0 or 1")
}

func setID(field **uint32, v string) error {
	id, err := parseID(v)
	if err != nil {
		return err
	}
	*field = &id
	return nil
}

// parseID reads a user or group number; 2^32-1 means "none" to the kernel.
func parseID(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, fmt.Errorf("%q is not a user or group number", v)
	}
	return uint32(n), nil
}

// parseRanges reads LAYER:VIEW:COUNT, any number of times.
func parseRanges(v string) ([]IDRange, error) {
	fields := strings.Split(v, ":")
	if len(fields)%3 != 0 {
		return nil, errors.New("want LAYER:VIEW:COUNT, once or several times")
	}
	var ranges []IDRange
	for i := 0; i < len(fields); i += 3 {
		var n [3]uint32
		for j := range n {
			var err error
			if n[j], err = parseID(fields[i+j]); err != nil {
				return nil, err
			}
		}
		r := IDRange{Layer: n[0], View: n[1], Count: n[2]}
		if r.Count == 0 || uint64(max(r.Layer, r.View))+uint64(r.Count) > math.MaxUint32 {
			return nil, fmt.Errorf("the range %d:%d:%d is empty or too long", r.Layer, r.View, r.Count)
		}
		for _, s := range ranges {
			if overlap(r.Layer, s.Layer, r.Count, s.Count) || overlap(r.View, s.View, r.Count, s.Count) {
				return nil, fmt.Errorf("the range %d:%d:%d overlaps another", r.Layer, r.View, r.Count)
			}
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func overlap(a, b, lenA, lenB uint32) bool {
	return uint64(a) < uint64(b)+uint64(lenB) && uint64(b) < uint64(a)+uint64(lenA)
}

// seconds reads a time in seconds, with a fraction if need be. fuse-overlayfs
// has 1000000000 as its default, which no time.Duration must overflow on.
func seconds(v string) (*time.Duration, error) {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || f < 0 {
		return nil, errors.New("want a number of seconds")
	}
	const most = 10 * 365 * 24 * time.Hour
	d := most
	if f < most.Seconds() {
		d = time.Duration(f * float64(time.Second))
	}
	return &d, nil
}

// ParseSize reads a number of bytes with an optional K, M, G or T (powers of 1024).
func ParseSize(v string) (int64, error) {
	shift := 0
	if v != "" {
		switch v[len(v)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		case 't', 'T':
			shift = 40
		}
	}
	digits := v
	if shift > 0 {
		digits = v[:len(v)-1]
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size (like 65536, 64K or 1M)", v)
	}
	return int64(n) << shift, nil
}

// ParseBudget reads bytes per second for which 0 stands for the default, or "off", which is -1; so is a
// size of 0.
func ParseBudget(v string) (int64, error) {
	if v == "off" {
		return -1, nil
	}
	n, err := ParseSize(v)
	if err == nil && n == 0 {
		n = -1
	}
	return n, err
}

// ParseThreshold reads a size for which 0 stands for the default, or "off", which is
// -1. A size of 0 comes back as 1.
func ParseThreshold(v string) (int64, error) {
	if v == "off" {
		return -1, nil
	}
	n, err := ParseSize(v)
	if err == nil && n == 0 {
		n = 1
	}
	return n, err
}
