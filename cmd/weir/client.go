package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weircache/weir/peer"
)

const (
	// askTime is how long a member may take to answer, including the answers of the others.
	askTime = 10 * time.Second
	// answerLimit is the longest answer that the client reads, in bytes.
	answerLimit = 256 << 20
)

// client sends requests to the stats endpoint of one member.
type client struct {
	base  *url.URL
	token string
}

func newClientOf(w *world) (*client, error) {
	addr := w.addr
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	base, err := url.Parse(addr)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usageError(fmt.Sprintf("--addr %q is no address: write it as http://127.0.0.1:8080/weir/", w.addr))
	}
	if base.Path == "" {
		base.Path = "/weir/"
	}
	if !strings.HasSuffix(base.Path, "/") {
		base.Path += "/"
	}
	c := &client{base: base}
	if w.token != "" {
		if c.token, err = readSecret(w.token); err != nil {
			return nil, usageError(fmt.Sprintf("--token-file: %v", err))
		}
		if c.token == "" {
			return nil, usageError(fmt.Sprintf("--token-file: %s is empty", w.token))
		}
	}
	return c, nil
}

func notWeir(format string, args ...any) error {
	return &exitError{exitTarget, fmt.Sprintf(format, args...)}
}

// ask sends a request and returns the status and the body. The error says what to do about it.
func (c *client) ask(ctx context.Context, method, name string, query url.Values, body any) (int, []byte, error) {
	return c.askFor(ctx, askTime, method, name, query, body)
}

// askFor is ask with a timeout of wait.
func (c *client) askFor(ctx context.Context, wait time.Duration, method, name string, query url.Values, body any) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	u := c.base.JoinPath(name)
	u.RawQuery = query.Encode()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), send)
	if err != nil {
		return 0, nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return 0, nil, notWeir("%s does not answer within %v", c.base, wait)
	case err != nil:
		return 0, nil, notWeir("nothing answers at %s: %v; --addr says where a member's stats endpoint is", c.base, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err == nil && len(b) > answerLimit {
		err = fmt.Errorf("the answer is longer than %d bytes", answerLimit)
	}
	if err != nil {
		return 0, nil, notWeir("%s broke off its answer: %v", c.base, err)
	}
	return resp.StatusCode, b, nil
}

// failure returns the error of a member that did not do what was requested.
func (c *client) failure(status int, body []byte) error {
	var refused peer.OperatorError
	_ = json.Unmarshal(body, &refused) // fails if the body is not JSON
	text := printable(cmp.Or(refused.Error, strings.TrimSpace(string(body))))
	text = text[:min(len(text), 300)]
	switch {
	case status == http.StatusNotFound && !strings.HasPrefix(text, "there is no namespace"):
		return notWeir("there is no stats endpoint of weir at %s: --addr names the place where the service has mounted it", c.base)
	case status == http.StatusUnauthorized && c.token == "":
		return usageError("the member wants the operator's token: give --token-file")
	case status == http.StatusUnauthorized:
		return &exitError{exitFailed, "the member refuses the token in --token-file"}
	case status >= 400 && status < 600 && !strings.HasPrefix(text, "<"):
		return &exitError{exitFailed, fmt.Sprintf("the member says: %s", text)}
	}
	return notWeir("%s answers with status %d: that is not weir", c.base, status)
}

// cluster requests the statistics of the whole cluster. raw is the unparsed answer.
func (c *client) cluster(ctx context.Context) (doc peer.ClusterStats, raw []byte, err error) {
	status, raw, err := c.ask(ctx, http.MethodGet, "stats", url.Values{"cluster": {"1"}}, nil)
	if err != nil {
		return doc, nil, err
	}
	if status != http.StatusOK {
		return doc, nil, c.failure(status, raw)
	}
	var head struct {
		Schema *int `json:"schema"`
	}
	if json.Unmarshal(raw, &head) != nil || head.Schema == nil {
		return doc, nil, notWeir("what answers at %s is not weir: --addr names the place where a service has mounted the stats endpoint", c.base)
	}
	if *head.Schema != peer.StatsSchema {
		return doc, nil, notWeir("the member's statistics have schema %d, this command understands %d: use the weir command of the member's version", *head.Schema, peer.StatsSchema)
	}
	if err := json.Unmarshal(raw, &doc); err != nil || doc.By == "" {
		return doc, nil, notWeir("what answers at %s is not weir, or of another version: %v", c.base, err)
	}
	return doc, raw, nil
}

// partial returns the error of a command that worked although members were missing.
func partial(missing []peer.MissingMember) error {
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, m := range missing {
		lines = append(lines, fmt.Sprintf("no answer from %s (%s): %s", printable(m.Name), m.Addr, printable(m.Reason)))
	}
	return &exitError{exitPartial, strings.Join(lines, "\n")}
}
