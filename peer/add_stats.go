package peer

import (
	"encoding/json"
	"slices"
	"strings"
)

// addStats adds several members' statistics of one namespace, or of several by name, as
// encoding/json decodes them into an any:
//
//   - numbers are added up; of those whose names begin with "max", "p50" or "p9", or end with
//     "_max", the greatest stands;
//   - texts stay if all members have the same, otherwise the different ones are joined by " | ";
//     booleans are true if one is;
//   - objects are added field by field; of arrays, of fields called "projection" or "drill" and of
//     ratios (names with "_per_" or "recent_") nothing is kept: they do not add up.
//
// The arguments are not changed.
func addStats(docs ...map[string]any) map[string]any {
	out := make(map[string]any)
	for _, d := range docs {
		addInto(out, d)
	}
	return out
}

// addInto adds from to into, whose objects and texts are its own.
func addInto(into, from map[string]any) {
	for name, v := range from {
		if name == "projection" || name == "drill" || strings.Contains(name, "_per_") || strings.HasPrefix(name, "recent_") {
			continue
		}
		old, has := into[name]
		switch v := v.(type) {
		case map[string]any:
			m, ok := old.(map[string]any)
			if !ok {
				m = make(map[string]any, len(v))
				into[name] = m
			}
			addInto(m, v)
		case json.Number:
			if f, err := v.Float64(); err == nil {
				addNumber(into, name, f)
			}
		case float64:
			addNumber(into, name, v)
		case bool:
			was, _ := old.(bool)
			into[name] = was || v
		case string:
			was, ok := old.(string)
			switch {
			case !has:
				into[name] = v
			case ok && !slices.Contains(strings.Split(was, " | "), v):
				into[name] = was + " | " + v
			}
		}
	}
}

func addNumber(into map[string]any, name string, f float64) {
	was, ok := into[name].(float64)
	switch {
	case !ok:
		into[name] = f
	case greatest(name):
		into[name] = max(was, f)
	default:
		into[name] = was + f
	}
}

// greatest reports whether of numbers with this name the greatest stands for all.
func greatest(name string) bool {
	for _, start := range []string{"max", "p50", "p9"} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return strings.HasSuffix(name, "_max")
}
