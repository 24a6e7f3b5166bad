package peer

import (
	"encoding/json"
	"slices"
	"strings"
)

// addStats adds up the statistics of several members. Each document holds one namespace's statistics, or several by name,
// as encoding/json decodes them into an any:
//
//   - Numbers are added up. If the name begins with "max", "p50" or "p9", or ends with "_max", the greatest is kept
//     instead.
//   - A text is kept if all members have the same one; otherwise the different ones are joined by " | ". A boolean is true
//     if any is.
//   - Objects are added field by field. Arrays, fields called "projection" or "drill", and ratios (names with "_per_" or
//     "recent_") are dropped, because they do not add up.
//
// The arguments are not changed.
func addStats(docs ...map[string]any) map[string]any {
	out := make(map[string]any)
	for _, d := range docs {
		addInto(out, d)
	}
	return out
}

// addInto adds the values of from to those of into. Afterwards the two share no object.
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

// greatest reports whether numbers with this name are combined by taking the greatest.
func greatest(name string) bool {
	for _, start := range []string{"max", "p50", "p9"} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return strings.HasSuffix(name, "_max")
}
