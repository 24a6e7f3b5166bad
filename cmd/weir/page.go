package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A page is what the cache stores of an answer from the origin.
type page struct {
	Status    int // 0: 200
	Body      []byte
	Fields    []field       // header fields to pass on, sorted by name
	ETag      string        // what clients get: the origin's, or one derived from the body
	Validator string        // the origin's own ETag, "": none
	Control   string        // directives of the origin's Cache-Control that clients must receive
	Age       time.Duration // the answer's age when the origin, or a cache in front of it, sent it
	Fresh     time.Duration // how long it is fresh after the load; 0: freshness.ttl
	Unkept    bool          // not kept in any cache: the origin forbids that
}

// A field is one line of a header.
type field struct{ Name, Value string }

// A headerSet is a set of names of header fields.
type headerSet map[string]bool

func newHeaderSet(names ...string) headerSet {
	s := make(headerSet)
	for _, name := range names {
		s[http.CanonicalHeaderKey(name)] = true
	}
	return s
}

// notPassedOn returns the origin's header fields that do not go into a page: those of the one connection (RFC 9110,
// 7.6.1), those that the node writes itself, and those that are for a single client.
func notPassedOn(h http.Header) headerSet {
	s := newHeaderSet("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Accept-Ranges", "Age", "Cache-Control", "Content-Length", "Date", "ETag", "Expires", "Pragma", "Warning", "X-Content-Type-Options",
		"Alt-Svc", "Clear-Site-Data", "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security")
	for _, list := range h.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			s[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return s
}

// newPage makes a page from an answer whose body has been read.
func newPage(resp *http.Response, body []byte) page {
	p := page{Body: body, ETag: resp.Header.Get("ETag"), Age: originAge(resp.Header)}
	if resp.StatusCode != http.StatusOK {
		p.Status = resp.StatusCode
	}
	p.Validator = p.ETag
	switch {
	case p.ETag == "":
		p.ETag = etagOf(body)
	case resp.Uncompressed && !strings.HasPrefix(p.ETag, "W/"): // the origin's ETag names the compressed bytes
		p.ETag = "W/" + p.ETag
	}
	p.Fields = fieldsOf(resp.Header, nil)
	return p
}

// fieldsOf returns the header fields to pass on, except those in without.
func fieldsOf(h http.Header, without headerSet) (fields []field) {
	not := notPassedOn(h)
	for name, values := range h {
		if !not[name] && !without[name] {
			for _, v := range values {
				fields = append(fields, field{name, v})
			}
		}
	}
	slices.SortStableFunc(fields, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}

// notRenewed are the fields that describe the body. A 304 does not contain them (RFC 9111, 3.2).
var notRenewed = newHeaderSet("Content-Encoding", "Content-Range", "Content-Type")

// renewed returns the page after the origin has confirmed with these headers that it has not changed (RFC 9111, 4.3.4).
func (p page) renewed(h http.Header) page {
	fresh := fieldsOf(h, notRenewed)
	named := make(headerSet)
	for _, f := range fresh {
		named[f.Name] = true
	}
	for _, f := range p.Fields {
		if !named[f.Name] {
			fresh = append(fresh, f)
		}
	}
	slices.SortStableFunc(fresh, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	p.Fields, p.Age, p.Control, p.Fresh, p.Unkept = fresh, originAge(h), "", 0, false
	return p
}

// get returns a field's first value.
func (p page) get(name string) string {
	for _, f := range p.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// conditions makes a request conditional on a change of the page. It reports whether it could.
func (p page) conditions(h http.Header) bool {
	modified := p.get("Last-Modified")
	switch {
	case p.Status != 0:
		return false
	case p.Validator != "":
		h.Set("If-None-Match", p.Validator)
	case modified != "":
		h.Set("If-Modified-Since", modified)
	default:
		return false
	}
	return true
}

// setFields sets the header fields that came from the origin.
func (p page) setFields(h http.Header) {
	h["Content-Type"] = nil // send none if the origin sent none, and do not guess
	for i, f := range p.Fields {
		if i == 0 || p.Fields[i-1].Name != f.Name {
			h[f.Name] = nil
		}
		h[f.Name] = append(h[f.Name], f.Value)
	}
}

// write sends the status and the body. The header is already set, except for what depends on the request.
func (p page) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch p.Status {
	case 0:
		h.Set("ETag", p.ETag)
		modified, _ := http.ParseTime(p.get("Last-Modified"))
		http.ServeContent(w, r, "", modified, bytes.NewReader(p.Body)) // handles conditions and ranges
	case http.StatusNoContent:
		w.WriteHeader(p.Status)
	default:
		h.Set("Content-Length", strconv.Itoa(len(p.Body)))
		w.WriteHeader(p.Status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(p.Body) // an error means that the client is gone
		}
	}
}

// etagOf derives an ETag from a body.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// originAge returns how old an answer already is, by its Age header.
func originAge(h http.Header) time.Duration {
	age, _ := deltaSeconds(h.Get("Age")) // 0 if it is missing or not a number
	return age
}
