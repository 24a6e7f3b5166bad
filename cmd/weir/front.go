package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// front answers GET /v1/{namespace}/{key} from the caches.
type front struct {
	node   string // the node's name, for Cache-Status
	spaces map[string]*space
	logger *slog.Logger
}

// space is one namespace that the front serves.
type space struct {
	cache        *tier.Cache[page]
	address      address // of the origin
	clientMaxAge time.Duration
	obey         bool // obey the clients' Cache-Control
}

func newSpace(n namespaceConfig, cache *tier.Cache[page]) *space {
	return &space{cache: cache, address: n.address, clientMaxAge: n.clientMaxAge, obey: n.obey}
}

// split extracts the namespace and the key from a request's path in its original form. A key may contain slashes,
// escaped or not.
func split(r *http.Request) (namespace, key string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v1/")
	if !ok {
		return "", "", false
	}
	first, last, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", false
	}
	namespace, err := url.PathUnescape(first)
	if err != nil {
		return "", "", false
	}
	key, err = url.PathUnescape(last)
	return namespace, key, err == nil
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD; to invalidate, POST to /v1/invalidate", http.StatusMethodNotAllowed)
		return
	}
	namespace, key, ok := split(r)
	if !ok {
		http.Error(w, "the address is /v1/{namespace}/{key}", http.StatusNotFound)
		return
	}
	s := f.spaces[namespace]
	if s == nil {
		http.Error(w, fmt.Sprintf("there is no namespace %.130q here", namespace), http.StatusNotFound)
		return
	}
	key, err := s.withQuery(key, r.URL.RawQuery)
	if err == nil {
		_, err = s.address.of(key)
	}
	if err != nil {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	wanted := wish{maxAge: tier.AnyAge}
	if s.obey {
		wanted = wishOf(r.Header, s.cache.Freshness().TTL)
	}
	a, err := s.read(r.Context(), key, wanted)
	if err != nil && !errors.Is(err, tier.ErrNotFound) {
		f.refuse(w, r, key, wanted, err)
		return
	}
	if err == nil {
		a.Value.setFields(w.Header())
	}
	f.describe(w.Header(), s, a, wanted, err != nil)
	if err != nil {
		http.Error(w, "the origin has no such key", http.StatusNotFound)
		return
	}
	a.Value.write(w, r)
}

// withQuery returns the key of a request with a query.
func (s *space) withQuery(key, query string) (string, error) {
	switch {
	case !s.address.withQuery && query != "":
		return "", errors.New("this namespace takes no query: percent-encode it into the key, or configure \"query: key\" for the namespace")
	case !s.address.withQuery:
		return key, nil
	case strings.Contains(key, "?"):
		return "", errors.New("the key has a question mark in its path: in this namespace the query begins there")
	case query == "":
		return key, nil
	}
	return key + "?" + query, nil
}

// read reads a key as the client requested it. The origin's answer may already be old. In that case read asks once for
// a new load.
func (s *space) read(ctx context.Context, key string, wanted wish) (tier.Answer[page], error) {
	o := tier.ReadOptions{MaxAge: wanted.maxAge, NoFill: wanted.cachedOnly}
	a, err := s.cache.Read(ctx, key, o)
	if err != nil || wanted.maxAge < 0 || a.Source == tier.SourceFill || a.Value.Age+a.Age <= max(wanted.maxAge, a.Age) {
		return a, err
	}
	o.MaxAge = revalidate
	return s.cache.Read(ctx, key, o)
}

// describe sets the headers with which RFC 9111 and RFC 9211 describe an answer from a cache.
func (f *front) describe(h http.Header, s *space, a tier.Answer[page], wanted wish, notFound bool) {
	p, contract := &a.Value, s.cache.Freshness()
	lifetime := contract.TTL
	switch {
	case notFound:
		lifetime = contract.NegativeTTL
	case p.Fresh > 0:
		lifetime = p.Fresh
	}
	left := int64(math.Floor((lifetime - a.Age).Seconds()))
	age := int64((p.Age + a.Age) / time.Second)
	h.Set("Age", strconv.FormatInt(age, 10))
	var control string
	switch fresh := min(int64(s.clientMaxAge/time.Second), left); {
	case p.Unkept:
		control = "no-store"
	case fresh > 0 && !a.Stale: // a client's cache subtracts Age from max-age
		control = "max-age=" + strconv.FormatInt(age+fresh, 10)
	default:
		control = "no-cache" // an invalidation does not reach the client's cache, so that cache must revalidate
	}
	if p.Control != "" {
		control += ", " + p.Control
	}
	h.Set("Cache-Control", control)
	status := quoted(f.node)
	switch ttl := "; ttl=" + strconv.FormatInt(left, 10); {
	case a.Source == tier.SourceFill && p.Unkept:
		status += "; fwd=" + wanted.forwarded()
	case a.Source == tier.SourceFill:
		status += "; fwd=" + wanted.forwarded() + "; stored" + ttl
	case a.Stale:
		status += "; hit" + ttl + "; detail=stale-" + a.Source.String()
	default:
		status += "; hit" + ttl + "; detail=" + a.Source.String()
	}
	h.Add("Cache-Status", status) // after those of the caches closer to the origin
}

// quoted returns a name as a string of a structured header (RFC 8941).
func quoted(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(name) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		default:
			b.WriteByte('?')
		}
	}
	b.WriteByte('"')
	return b.String()
}

// refuse answers a read that returned no value.
func (f *front) refuse(w http.ResponseWriter, r *http.Request, key string, wanted wish, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	status := quoted(f.node) + "; fwd=" + wanted.forwarded()
	var over *tier.OverloadedError
	answered, fromOrigin := originErrorOf(err)
	var code int
	var text string
	switch {
	case r.Context().Err() != nil: // the client is gone
		code = http.StatusServiceUnavailable
	case errors.Is(err, tier.ErrNotCached):
		status = quoted(f.node) + "; detail=only-if-cached"
		code, text = http.StatusGatewayTimeout, "no copy is cached that the request allows, and it says only-if-cached"
	case errors.As(err, &over):
		setRetryAfter(h, over.RetryAfter)
		code, text = http.StatusServiceUnavailable, "the origin is overloaded"
	case fromOrigin:
		status += "; fwd-status=" + strconv.Itoa(answered.status)
		code, text = http.StatusBadGateway, "the origin could not be read"
		if answered.retryAfter > 0 {
			setRetryAfter(h, answered.retryAfter)
		}
		switch answered.status {
		case http.StatusTooManyRequests:
			code, text = answered.status, "the origin accepts no more requests for now"
		case http.StatusServiceUnavailable:
			code, text = answered.status, "the origin is not available"
		case http.StatusGatewayTimeout:
			code, text = answered.status, "the origin did not answer in time"
		}
	case errors.Is(err, tier.ErrEmptyKey):
		code, text = http.StatusNotFound, "the key is empty: the address is /v1/{namespace}/{key}"
	case errors.Is(err, tier.ErrKeyTooLarge):
		code, text = http.StatusRequestURITooLong, "the key is too long"
	case errors.Is(err, tier.ErrClosed):
		code, text = http.StatusServiceUnavailable, "this node is going down"
	case errors.Is(err, context.DeadlineExceeded):
		code, text = http.StatusGatewayTimeout, "the origin did not answer in time"
	default:
		f.logger.Debug("a read failed", "key", key, "error", err)
		code, text = http.StatusBadGateway, "the origin could not be read"
	}
	h.Set("Cache-Status", status)
	http.Error(w, text, code)
}

// setRetryAfter says when to retry, in whole seconds and at least one.
func setRetryAfter(h http.Header, after time.Duration) {
	h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(max(after.Seconds(), 1))), 10))
}
