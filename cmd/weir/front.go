package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	node   string // its name, for Cache-Status
	spaces map[string]*space
	logger *slog.Logger
}

// space is one namespace of the front.
type space struct {
	cache        *tier.Cache[page]
	clientMaxAge time.Duration
}

// etagOf makes an ETag of a body.
func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// split takes the namespace and the key out of an address's path, as it was sent: a key may have
// slashes in it, escaped or not.
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
	a, err := s.cache.Read(r.Context(), key, tier.ReadOptions{MaxAge: wantedAge(r.Header)})
	if err != nil && !errors.Is(err, tier.ErrNotFound) {
		f.refuse(w, r, key, err)
		return
	}
	f.describe(w.Header(), s, a)
	if err != nil {
		http.Error(w, "the origin has no such key", http.StatusNotFound)
		return
	}
	if a.Value.Type != "" {
		w.Header().Set("Content-Type", a.Value.Type)
	}
	w.Header().Set("ETag", a.Value.ETag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.Value.Body)) // conditions and ranges
}

// describe sets what RFC 9111 and RFC 9211 say of an answer out of a cache.
func (f *front) describe(h http.Header, s *space, a tier.Answer[page]) {
	h.Set("Age", strconv.FormatInt(int64(a.Age/time.Second), 10))
	control := "no-cache" // an invalidation does not reach the client's cache: it has to ask
	if s.clientMaxAge > 0 && !a.Stale {
		control = "max-age=" + strconv.FormatInt(int64(s.clientMaxAge/time.Second), 10)
	}
	h.Set("Cache-Control", control)
	left := strconv.FormatInt(int64(math.Floor((s.cache.Freshness().TTL - a.Age).Seconds())), 10)
	status := quoted(f.node)
	switch {
	case a.Source == tier.SourceFill:
		status += "; fwd=miss; stored; ttl=" + left
	case a.Stale:
		status += "; hit; ttl=" + left + "; detail=stale-" + a.Source.String()
	default:
		status += "; hit; ttl=" + left + "; detail=" + a.Source.String()
	}
	h.Set("Cache-Status", status)
}

// quoted is a name as a structured header's string (RFC 8941).
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

// wantedAge is how old an answer the client's Cache-Control accepts.
func wantedAge(h http.Header) time.Duration {
	age := tier.AnyAge
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-cache", "no-store":
			return 0
		case "max-age":
			n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 32)
			if d := time.Duration(n) * time.Second; err == nil && n >= 0 && (age < 0 || d < age) {
				age = d
			}
		}
	}
	return age
}

// refuse answers a read that brought no value.
func (f *front) refuse(w http.ResponseWriter, r *http.Request, key string, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Cache-Status", quoted(f.node)+"; fwd=miss")
	var over *tier.OverloadedError
	switch {
	case r.Context().Err() != nil: // the client is gone
		w.WriteHeader(http.StatusServiceUnavailable)
	case errors.As(err, &over):
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(max(over.RetryAfter.Seconds(), 1))), 10))
		http.Error(w, "the origin is overloaded", http.StatusServiceUnavailable)
	case errors.Is(err, tier.ErrEmptyKey):
		http.Error(w, "the key is empty: the address is /v1/{namespace}/{key}", http.StatusNotFound)
	case errors.Is(err, tier.ErrKeyTooLarge):
		http.Error(w, "the key is too long", http.StatusRequestURITooLong)
	case errors.Is(err, tier.ErrClosed):
		http.Error(w, "this node is going down", http.StatusServiceUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		http.Error(w, "the origin did not answer in time", http.StatusGatewayTimeout)
	default:
		f.logger.Debug("a read failed", "key", key, "error", err)
		http.Error(w, "the origin could not be read", http.StatusBadGateway)
	}
}
