package mountopt

import (
	"errors"
	"strings"
)

// Pair is one option: a word, or a word and a value. The value is still
// escaped.
type Pair struct {
	Key, Value string
	HasValue   bool
}

// Split takes a list of options apart at its commas. A backslash takes the comma
// after it along; the value of an SELinux context may stand in double quotes, as
// it has commas of its own. Empty options, which scripts produce, are left out.
func Split(list string) ([]Pair, error) {
	var pairs []Pair
	for list != "" {
		end, err := optionEnd(list)
		if err != nil {
			return nil, err
		}
		option := list[:end]
		if list = list[end:]; list != "" {
			list = list[1:]
		}
		if option == "" {
			continue
		}
		p := Pair{Key: option}
		p.Key, p.Value, p.HasValue = strings.Cut(option, "=")
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// optionEnd is the length of the first option of list.
func optionEnd(list string) (int, error) {
	start := 0
	if key, rest, ok := strings.Cut(list, "="); ok && isContext(key) && strings.HasPrefix(rest, `"`) {
		quoted := len(key) + 2
		closing := strings.IndexByte(list[quoted:], '"')
		if closing < 0 {
			return 0, &Error{Option: key, Reason: "the quotation mark is not closed"}
		}
		start = quoted + closing + 1
	}
	for i := start; i < len(list); i++ {
		switch list[i] {
		case '\\':
			i++
		case ',':
			return i, nil
		}
	}
	return len(list), nil
}

func isContext(key string) bool {
	switch key {
	case "context", "fscontext", "defcontext", "rootcontext":
		return true
	}
	return false
}

// SplitDirs takes the value of lowerdir apart: directories, topmost first,
// between single colons; then, each after a double colon, directories that hold
// only data. The paths come back without escapes.
func SplitDirs(value string) (dirs, data []string, err error) {
	into := &dirs
	start := 0
	for i := 0; ; i++ {
		if i < len(value) && value[i] == '\\' {
			i++
			continue
		}
		if i < len(value) && value[i] != ':' {
			continue
		}
		dir := Unescape(value[start:min(i, len(value))])
		if dir == "" {
			return nil, nil, errors.New("an empty directory name in the list")
		}
		*into = append(*into, dir)
		if i >= len(value) {
			return dirs, data, nil
		}
		if i+1 < len(value) && value[i+1] == ':' {
			into = &data
			i++
		} else if into == &data {
			return nil, nil, errors.New("a directory after a data-only one (::) must be data-only too")
		}
		start = i + 1
	}
}

// Unescape removes the backslashes that take the meaning from what follows. One
// at the very end stands for itself.
func Unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

var escaper = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)

// Escape is the inverse of [Unescape]: what it returns can stand between the
// colons of lowerdir, in any list of options.
func Escape(path string) string { return escaper.Replace(path) }

// unescapeCommas is for values in which colons and backslashes are literal
// (lowerdir+, datadir+): only the comma needs help to get through the list.
func unescapeCommas(s string) string { return strings.ReplaceAll(s, `\,`, `,`) }
