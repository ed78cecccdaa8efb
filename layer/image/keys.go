package image

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Keys is a map by names of files or attributes, which need not be UTF-8, as keys of JSON are. There a name that is
// not, or that begins with a quotation mark, is as Go quotes it.
type Keys[V any] map[string]V

// MarshalJSON implements json.Marshaler.
func (k Keys[V]) MarshalJSON() ([]byte, error) {
	plain := make(map[string]V, len(k))
	for name, v := range k {
		if !utf8.ValidString(name) || strings.HasPrefix(name, `"`) {
			name = strconv.Quote(name)
		}
		plain[name] = v
	}
	return json.Marshal(plain)
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *Keys[V]) UnmarshalJSON(b []byte) error {
	var plain map[string]V
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	*k = make(Keys[V], len(plain))
	for key, v := range plain {
		if name, err := strconv.Unquote(key); err == nil && key[0] == '"' {
			key = name
		}
		(*k)[key] = v
	}
	return nil
}
