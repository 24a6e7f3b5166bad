package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// A wish is what a request's Cache-Control demands of the cache.
type wish struct {
	maxAge     time.Duration // of the oldest acceptable answer; tier.AnyAge: what the contract allows
	cachedOnly bool          // only an answer that needs no load
}

// revalidate is an age that rules out every copy older than the request: only a load that begins after the request is
// young enough.
const revalidate = 10 * time.Microsecond

// wishOf parses a request's headers; ttl is how long values are fresh (RFC 9111, 5.2.1, 5.4). HTTP.md has the table.
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

// atMost lowers the maximum age to age.
func (w *wish) atMost(age time.Duration) {
	age = max(age, revalidate)
	if w.maxAge < 0 || age < w.maxAge {
		w.maxAge = age
	}
}

// forwarded returns the reason why a request without a usable copy went to the origin (RFC 9211, 2.2).
func (w wish) forwarded() string {
	if w.maxAge >= 0 {
		return "request"
	}
	return "miss"
}
