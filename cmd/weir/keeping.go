package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// A controlPolicy is the effect of an origin's Cache-Control on its values.
type controlPolicy uint8

const (
	obeyBans      controlPolicy = iota // its prohibitions hold; the contract decides how long a value is kept
	obeyLifetimes                      // it may also shorten the contract's times for a value
	obeyNothing                        // only the contract counts
)

// parseControlPolicy reads origin.cache_control.
func parseControlPolicy(text string) (controlPolicy, error) {
	switch text {
	case "bans":
		return obeyBans, nil
	case "lifetimes":
		return obeyLifetimes, nil
	case "ignore":
		return obeyNothing, nil
	}
	return obeyBans, fmt.Errorf("%q is not bans, lifetimes or ignore", text)
}

// keeping describes how an answer of the origin is kept.
type keeping struct {
	not     bool          // not at all
	ttl     time.Duration // how long it is fresh; 0: as the contract says
	stale   tier.Stale    // how long it may be served stale after that
	control string        // directives that clients' caches must receive
}

// only limits the answer to ttl, and never serves it stale. With a ttl of 0 the answer is not kept.
func (k *keeping) only(ttl time.Duration) {
	k.stale = tier.Stale{}
	if k.ttl == 0 || k.ttl > ttl {
		k.ttl = ttl
	}
	k.not = k.not || ttl <= 0
}

// keeping evaluates the headers of an answer (RFC 9111, 5.2.2, 5.3; RFC 5861). HTTP.md has the table.
func (policy controlPolicy) keeping(h http.Header, contract tier.Freshness) keeping {
	k := keeping{stale: tier.Stale{WhileRevalidate: contract.StaleWhileRevalidate, IfError: contract.StaleIfError}}
	if policy == obeyNothing {
		return k
	}
	d := parseDirectives(h)
	k.not = d.has("no-store") || d.has("private") || d.has("no-cache") || variesOnAll(h)
	var control []string
	if d.has("must-revalidate") || d.has("proxy-revalidate") {
		k.stale = tier.Stale{}
	}
	for _, name := range []string{"must-revalidate", "proxy-revalidate", "no-transform"} {
		if d.has(name) {
			control = append(control, name)
		}
	}
	k.control = strings.Join(control, ", ")
	if policy != obeyLifetimes {
		return k
	}
	if life, given := lifetime(h, d); given {
		life -= originAge(h)
		k.not = k.not || life <= 0
		if life < contract.TTL { // a longer lifetime becomes the contract's TTL, with its jitter
			k.ttl = life
		}
	}
	if s, given := d.seconds("stale-while-revalidate"); given {
		k.stale.WhileRevalidate = min(k.stale.WhileRevalidate, s)
	}
	if s, given := d.seconds("stale-if-error"); given {
		k.stale.IfError = min(k.stale.IfError, s)
	}
	return k
}

// lifetime returns how long an answer is fresh by its own headers. given is false if they do not say. An unreadable
// lifetime counts as already stale (RFC 9111, 4.2.1).
func lifetime(h http.Header, d directives) (life time.Duration, given bool) {
	for _, name := range []string{"s-maxage", "max-age"} {
		if d.has(name) {
			life, _ = d.seconds(name)
			return life, true
		}
	}
	expires := h.Get("Expires")
	if expires == "" {
		return 0, false
	}
	until, err := http.ParseTime(expires)
	if err != nil {
		return 0, true
	}
	from, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		from = time.Now()
	}
	return until.Sub(from), true
}

// variesOnAll reports whether an answer depends on more than its request (RFC 9110, 12.5.5).
func variesOnAll(h http.Header) bool {
	for _, list := range h.Values("Vary") {
		for name := range strings.SplitSeq(list, ",") {
			if strings.TrimSpace(name) == "*" {
				return true
			}
		}
	}
	return false
}
