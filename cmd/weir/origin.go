package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weircache/weir/tier"
)

// A page is what the cache holds of an answer of the origin.
type page struct {
	Body []byte
	Type string // Content-Type
	ETag string // the origin's, or one made of the body
	Own  bool   // ETag is made of the body: the origin does not know it
}

// origin reads one namespace's values over HTTP.
type origin struct {
	template string
	headers  http.Header
	limit    int64 // bytes of a body
	client   *http.Client
}

// maxDrain is how much of a body nobody wants is read so that the connection can be used again.
const maxDrain = 64 << 10

func newOrigin(n namespaceConfig, client *http.Client) *origin {
	limit := int64(n.cache.ValueLimit)
	if limit == 0 {
		limit = tier.DefaultValueLimit
	}
	return &origin{template: n.url, headers: n.headers, limit: limit, client: client}
}

// newClient returns a client for origins, with as many idle connections to one as it has use for.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("more than 3 redirects")
			}
			return nil
		},
	}
}

// address is where the origin has a key.
func (o *origin) address(key string) string {
	before, after, _ := strings.Cut(o.template, "{key}")
	if strings.Contains(before, "?") {
		return before + url.QueryEscape(key) + after
	}
	escaped := url.PathEscape(key)
	if strings.Trim(escaped, ".") == "" { // "." and ".." would mean another place
		escaped = strings.ReplaceAll(escaped, ".", "%2E")
	}
	return before + escaped + after
}

// load is the namespace's loader. A copy that is there makes the request a conditional one.
func (o *origin) load(ctx context.Context, fill *tier.Fill[page]) (page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.address(fill.Key), nil)
	if err != nil {
		return page{}, err
	}
	for name, values := range o.headers {
		req.Header[name] = values
	}
	previous, has := fill.Previous()
	if has && !previous.Own {
		req.Header.Set("If-None-Match", previous.ETag)
	}
	done := fill.Step("http")
	resp, err := o.client.Do(req)
	if err != nil {
		done()
		return page{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, o.limit+1))
	done()
	switch {
	case resp.StatusCode == http.StatusNotModified && has:
		return fill.KeepPrevious()
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return page{}, tier.ErrNotFound
	case resp.StatusCode != http.StatusOK:
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain) // so that the connection can be used again
		return page{}, fmt.Errorf("the origin answers %s", resp.Status)
	case err != nil:
		return page{}, fmt.Errorf("reading the origin's answer: %w", err)
	case int64(len(body)) > o.limit:
		return page{}, fmt.Errorf("%w: the origin's answer is longer than value_limit, %d bytes", tier.ErrValueTooLarge, o.limit)
	}
	p := page{Body: body, Type: resp.Header.Get("Content-Type"), ETag: resp.Header.Get("ETag")}
	if p.ETag == "" {
		p.ETag, p.Own = etagOf(body), true
	}
	return p, nil
}
