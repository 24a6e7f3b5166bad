package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxRedirects is how many redirects of an origin the node follows for one value.
const maxRedirects = 3

// errRedirect says that an origin's redirect was not followed.
var errRedirect = errors.New("the origin's redirect was not followed")

// newTransport returns the transport for all origins. It keeps as many idle connections to each as it can use.
func newTransport() *http.Transport {
	return &http.Transport{
		MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
	}
}

// newClient returns a namespace's client for its origin. It follows redirects within the origin and to the allowed
// other origins. It never sends another origin the configured headers or the address that led to it, because both may
// contain credentials.
func newClient(transport http.RoundTripper, root *url.URL, allowed map[string]bool) *http.Client {
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch same := sameOrigin(req.URL, root); {
			case len(via) > maxRedirects:
				return fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
			case same:
			case !allowed[originOf(req.URL)]:
				return fmt.Errorf("%w: it leads to %s, which origin.redirects does not allow", errRedirect, originOf(req.URL))
			default:
				req.Header = make(http.Header)
			}
			return nil
		},
	}
}

// parseOrigin parses a scheme, host and port, which is the form of origin.redirects.
func parseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not a scheme and a host, as in https://files.example.com", text)
	}
	return originOf(u), nil
}
