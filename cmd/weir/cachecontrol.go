package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// directives are the directives of a Cache-Control header by name, in lower case (RFC 9111, 5.2). If a directive occurs
// twice, all its values count. An invalid part does not affect its neighbours: a prohibition after it still holds.
type directives map[string][]string

// parseDirectives parses the Cache-Control headers.
func parseDirectives(h http.Header) directives {
	d := make(directives)
	rest := strings.Join(h.Values("Cache-Control"), ",")
	for rest != "" {
		var part string
		part, rest = cutUnquoted(rest, ',')
		name, value, _ := strings.Cut(part, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			d[name] = append(d[name], strings.Trim(strings.TrimSpace(value), `"`))
		}
	}
	return d
}

// cutUnquoted cuts s at the first separator outside a quoted string.
func cutUnquoted(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func (d directives) has(name string) bool { return len(d[name]) > 0 }

// seconds returns the shortest valid duration that a directive gives. ok is false if it gives none.
func (d directives) seconds(name string) (shortest time.Duration, ok bool) {
	for _, text := range d[name] {
		if v, valid := deltaSeconds(text); valid && (!ok || v < shortest) {
			shortest, ok = v, true
		}
	}
	return shortest, ok
}

// maxDelta replaces longer durations in headers (RFC 9111, 1.2.2).
const maxDelta = (1<<31 - 1) * time.Second

// deltaSeconds parses a number of seconds.
func deltaSeconds(text string) (d time.Duration, ok bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return maxDelta, true // all digits, so it is too large
	}
	return time.Duration(n) * time.Second, true
}
