package peer

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/weircache/weir/codec"
)

// statsOf returns a handler's statistics. The handler may be a user's own.
func statsOf(h codec.Handler) (stats any) {
	defer func() {
		if p := recover(); p != nil {
			stats = map[string]string{"error": "the handler panicked: " + cutEvent(fmt.Sprint(p))}
		}
	}()
	return h.Stats()
}

// statsJSON returns Stats as JSON. A namespace that cannot be encoded does not affect the others.
func (e endpoint) statsJSON() ([]byte, error) {
	s := e.n.Stats()
	for name, v := range s.Namespaces {
		b, err := json.Marshal(v)
		if err != nil {
			s.Namespaces[name] = map[string]string{"error": cutEvent(err.Error())}
			continue
		}
		s.Namespaces[name] = json.RawMessage(b)
	}
	return json.Marshal(s)
}

// Version returns the version of weir that the program was built with, from the build information: "v1.2.3", "(devel)", or
// "unknown".
func Version() string {
	const module = "github.com/weircache/weir"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == module && m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}
