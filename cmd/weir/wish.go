package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// A wish is what a request's Cache-Control asks of the cache.
type wish struct {
	maxAge     time.Duration // of the oldest answer; tier.AnyAge: what the contract allows
	cachedOnly bool          // nothing that would have to be loaded
}

// revalidate is the age that no copy can have which was there before the request: only a
// load that begins after it is young enough.
const revalidate = 10 * time.Microsecond

// wishOf reads a request's headers; ttl is for how long values are fresh (RFC 9111, 5.2.1, 5.4). HTTP.md has the table.
func wishOf(h http.Header, ttl time.Duration) wish {
	d := parseDirectives(h)
	w := wish{maxAge: tier.AnyAge, cachedOnly: d.has("only-if-cached")}
	if age, ok := d.seconds("max-age"); ok {
		w.atMost(age)
	}
	if left, ok := d.seconds("min-fresh"); ok && left > 0 {
		w.atMost(ttl - left)
	}
	if d.has("no-cache") || len(d) == 0 && strings.Contains(strings.ToLower(h.Get("Pragma")), "no-cache") {
		w.atMost(0)
	}
	return w
}

// atMost bounds the age.
func (w *wish) atMost(age time.Duration) {
	age = max(age, revalidate)
	if w.maxAge < 0 || age < w.maxAge {
		w.maxAge = age
	}
}

// forwarded is why a request that was not answered from a copy went to the origin (RFC 9211, 2.2).
func (w wish) forwarded() string {
	if w.maxAge >= 0 {
		return "request"
	}
	return "miss"
}
