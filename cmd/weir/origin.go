package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// origin reads one namespace's values over HTTP.
type origin struct {
	address   address
	headers   http.Header
	limit     int64 // bytes of a body
	client    *http.Client
	control   controlPolicy
	freshness tier.Freshness
}

// newOrigin returns a namespace's origin, which it accesses through transport.
func newOrigin(n namespaceConfig, transport http.RoundTripper) *origin {
	limit := int64(n.cache.ValueLimit)
	if limit == 0 {
		limit = tier.DefaultValueLimit
	}
	return &origin{
		address: n.address, headers: n.headers, limit: limit, control: n.control, freshness: n.cache.Freshness,
		client: newClient(transport, n.address.root, n.redirects),
	}
}

// An originError says that the origin answered with a status that does not yield a value. Other members receive its
// text, which is what a tier keeps of a loader's error. originErrorOf parses the text.
type originError struct {
	status     int
	retryAfter time.Duration // the origin's Retry-After, 0: none
}

// The parts of an originError's text.
const (
	originAnswers = "the origin answers "
	retryText     = "; Retry-After: "
)

func (e originError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("%s%d %s", originAnswers, e.status, http.StatusText(e.status)))
	if e.retryAfter > 0 {
		text += retryText + strconv.FormatInt(int64(e.retryAfter/time.Second), 10)
	}
	return text
}

// originErrorOf finds an originError in the error of a read, on whichever member the load ran.
func originErrorOf(err error) (e originError, ok bool) {
	if errors.As(err, &e) {
		return e, true
	}
	var fill *tier.FillError
	if !errors.As(err, &fill) {
		return e, false
	}
	rest, ok := strings.CutPrefix(fill.Err.Error(), originAnswers)
	if !ok {
		return e, false
	}
	rest, after, _ := strings.Cut(rest, retryText)
	status, _, _ := strings.Cut(rest, " ")
	if e.status, err = strconv.Atoi(status); err != nil || e.status < 100 || e.status > 599 {
		return originError{}, false
	}
	e.retryAfter, _ = deltaSeconds(after) // 0 if it is missing
	return e, true
}

// load is the namespace's loader. If there is a copy, it makes the request conditional.
func (o *origin) load(ctx context.Context, fill *tier.Fill[page]) (page, error) {
	to, err := o.address.of(fill.Key)
	if err != nil {
		return page{}, tier.Blameless(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return page{}, tier.Blameless(err)
	}
	for name, values := range o.headers {
		req.Header[name] = values
	}
	if host := o.headers.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	previous, has := fill.Previous()
	conditional := has && previous.conditions(req.Header)
	done := fill.Step("http")
	resp, err := o.client.Do(req)
	if err != nil {
		done(err)
		return page{}, requestError(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, o.limit+1))
	done(err)
	if err != nil {
		return page{}, fmt.Errorf("reading the origin's answer: %w", err)
	}
	if int64(len(body)) > o.limit && resp.StatusCode < 300 {
		return page{}, tier.Blameless(fmt.Errorf("%w: the origin's answer is longer than value_limit, %d bytes", tier.ErrValueTooLarge, o.limit))
	}
	if resp.StatusCode == http.StatusNotModified && conditional {
		p := previous.renewed(resp.Header)
		return p, o.keep(fill, &p, o.control.keeping(resp.Header, o.freshness))
	}
	return o.answer(fill, resp, body)
}

// requestError returns the error of a request without an answer, stripped of the URL, which may contain credentials.
func requestError(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.Is(err, errRedirect) { // a property of this key: other keys may not be redirected
		return tier.Blameless(err)
	}
	return err
}

// answer returns the result of a load for an answer of the origin, and tells the fill how it is kept.
//
//	200, 203, 204    a value
//	other 2xx        returned to the waiting callers and not kept: a cache cannot know what it means
//	404              not found, for freshness.negative_ttl; if it may not be kept, the origin's answer
//	410              the origin's answer, for freshness.negative_ttl
//	429              an error that does not count against the origin: it limits this node; a stale copy may stand in
//	other 4xx        the origin's answer, for freshness.error_ttl: the key is at fault, not the origin
//	the rest         an error that counts against the origin; a stale copy may stand in
func (o *origin) answer(fill *tier.Fill[page], resp *http.Response, body []byte) (page, error) {
	keeping := o.control.keeping(resp.Header, o.freshness)
	status := resp.StatusCode
	switch {
	case status == http.StatusOK, status == http.StatusNonAuthoritativeInfo, status == http.StatusNoContent:
	case status >= 200 && status < 300:
		keeping.not = true
	case status == http.StatusNotFound && !keeping.not:
		return page{}, tier.ErrNotFound
	case status == http.StatusGone:
		keeping.only(o.freshness.NegativeTTL)
	case status == http.StatusTooManyRequests:
		return page{}, tier.Blameless(originError{status, retryAfter(resp.Header)})
	case status >= 400 && status < 500:
		keeping.only(o.freshness.ErrorTTL)
	default:
		return page{}, originError{status, retryAfter(resp.Header)}
	}
	if int64(len(body)) > o.limit { // for an answer that is not a value, only the status counts
		body = nil
	}
	p := newPage(resp, body)
	return p, o.keep(fill, &p, keeping)
}

// keep tells the fill how the page is kept, and records it in the page. The error is always nil.
func (o *origin) keep(fill *tier.Fill[page], p *page, k keeping) error {
	p.Control, p.Fresh, p.Unkept = k.control, k.ttl, k.not
	if k.not {
		fill.DoNotKeep()
		return nil
	}
	if k.ttl > 0 {
		fill.SetTTL(k.ttl)
	}
	fill.SetStale(k.stale)
	return nil
}

// retryAfter returns how long an answer's Retry-After asks clients to wait; 0: it does not say.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if d, ok := deltaSeconds(text); ok {
		return d
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0).Truncate(time.Second)
}
