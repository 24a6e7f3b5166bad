package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// keyMark marks the place of the key in a template.
const keyMark = "{key}"

// An address is a template of the origin's URL: it turns a key into the URL that the node requests.
//
// A key comes from a client, and the request for it carries the origin's credentials. So the key may only fill its
// place. Every URL comes from address.of, which rejects every key that could escape from that place at an origin, or at
// a proxy in front of it, that decodes or normalizes paths (RFC 3986, 6.2.2). Escaping alone does not contain such a
// key: those servers undo %2F, %2E and a backslash.
type address struct {
	before, after string // the template around {key}
	inQuery       bool   // {key} is in the query
	withQuery     bool   // a key is a path, optionally with "?" and a query
	root          *url.URL
}

// errKeyPlace says that a key could leave its place in the origin's URL.
var errKeyPlace = errors.New("the key could leave its place in the origin's address")

// parseAddress parses a template. withQuery allows keys to have a query of their own.
func parseAddress(template string, withQuery bool) (address, error) {
	if template == "" {
		return address{}, errors.New("it is missing: say where the origin is, as in http://127.0.0.1:9000/products/{key}")
	}
	if strings.Count(template, keyMark) != 1 {
		return address{}, fmt.Errorf("%q must have {key} in it once", template)
	}
	const mark = "0weir0key0"
	u, err := url.Parse(strings.Replace(template, keyMark, mark, 1))
	switch {
	case err != nil:
		return address{}, fmt.Errorf("%q is not a URL: %w", template, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return address{}, fmt.Errorf("%q must begin with http:// or https:// and a host", template)
	case strings.Contains(u.Host, mark) || strings.Contains(u.Fragment, mark) || u.User != nil && strings.Contains(u.User.String(), mark):
		return address{}, fmt.Errorf("%q: {key} belongs into the path or the query", template)
	case dotSegment(decoded(u.EscapedPath())):
		return address{}, fmt.Errorf("%q has a path segment \".\" or \"..\": write the path that is meant", template)
	}
	before, after, _ := strings.Cut(template, keyMark)
	a := address{before: before, after: after, inQuery: strings.Contains(before, "?"), withQuery: withQuery, root: u}
	if withQuery && strings.ContainsAny(template, "?#") {
		return address{}, fmt.Errorf("%q has a query or a fragment: with \"query: key\" the query comes from the client", template)
	}
	return a, nil
}

// of returns the URL for a key. The error wraps errKeyPlace.
func (a address) of(key string) (string, error) {
	if a.inQuery {
		return a.before + url.QueryEscape(key) + a.after, nil
	}
	path, query, asked := key, "", false
	if a.withQuery {
		path, query, asked = strings.Cut(key, "?")
	}
	if err := a.checkPath(path); err != nil {
		return "", err
	}
	if err := checkQuery(query); err != nil {
		return "", err
	}
	escaped := a.before + url.PathEscape(path) + a.after
	if asked {
		escaped += "?" + query
	}
	return escaped, nil
}

// checkPath rejects a key that does not stay in its place in the path.
func (a address) checkPath(key string) error {
	key = decoded(key)
	for _, c := range []byte(key) {
		switch {
		case c == '\\':
			return fmt.Errorf("%w: it has a backslash, which some servers read as a slash", errKeyPlace)
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("%w: it has a control character", errKeyPlace)
		}
	}
	_, before, _ := strings.Cut(a.before, "://")
	after, _, _ := strings.Cut(a.after, "?")
	if dotSegment(decoded(before) + key + decoded(after)) {
		return fmt.Errorf("%w: it makes a path segment \".\" or \"..\"", errKeyPlace)
	}
	return nil
}

// checkQuery rejects a query that is more than a query (RFC 3986, 3.4).
func checkQuery(query string) error {
	for _, c := range []byte(query) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>\\^`{|}", c) >= 0 {
			return fmt.Errorf("%w: its query has the character %q: percent-encode it", errKeyPlace, c)
		}
	}
	return nil
}

// decoded undoes percent-encoding as often as a chain of servers might: until nothing is left to decode.
func decoded(s string) string {
	for strings.IndexByte(s, '%') >= 0 {
		next := decodedOnce(s)
		if next == s {
			break
		}
		s = next
	}
	return s
}

// decodedOnce decodes valid percent-encoding and leaves the rest unchanged.
func decodedOnce(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if one, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(one)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// dotSegment reports whether a decoded path has a segment that refers to another place: "." or "..", optionally
// followed by a semicolon and parameters, which some servers cut off first.
func dotSegment(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return true
		}
	}
	return false
}

// sameOrigin reports whether two URLs have the same scheme, host and port (RFC 6454).
func sameOrigin(a, b *url.URL) bool { return originOf(a) == originOf(b) }

// originOf returns a URL's scheme, host and port as one string.
func originOf(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
