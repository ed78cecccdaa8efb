package cow

import (
	"encoding/json"

	"github.com/plyfs/plyfs/layer"
)

type (
	plainEvent Event
	eventJSON  struct {
		plainEvent
		PathBytes  []byte `json:"path_bytes,omitempty"`
		LayerBytes []byte `json:"layer_bytes,omitempty"`
	}
)

// MarshalJSON implements json.Marshaler: names need not be UTF-8, see [layer.NotText].
func (ev Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(eventJSON{plainEvent(ev), layer.NotText(ev.Path), layer.NotText(ev.Layer)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (ev *Event) UnmarshalJSON(b []byte) error {
	var x eventJSON
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	*ev = Event(x.plainEvent)
	if x.PathBytes != nil {
		ev.Path = string(x.PathBytes)
	}
	if x.LayerBytes != nil {
		ev.Layer = string(x.LayerBytes)
	}
	return nil
}
