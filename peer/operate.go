package peer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// MinOperatorToken is the least length of Config.OperatorToken, in bytes. A random token of this length cannot be
	// guessed.
	MinOperatorToken = 16
	// maxOperatorToken is its greatest length, in bytes: the token travels in a header.
	maxOperatorToken = 512
	// maxOperatorBody is the longest body of an operator's request, in bytes: enough for a thousand of the longest keys.
	maxOperatorBody = 1 << 20
	// operatorBodyTime is how long the body may take to arrive.
	operatorBodyTime = 5 * time.Second
	// operatorTime bounds what an operator's request does.
	operatorTime = 15 * time.Second
	// keySuccessors is how many successors of a key are named.
	keySuccessors = 2
)

// checkToken returns what is wrong with an operator's token, or nil. The error does not repeat the token.
func checkToken(token string) error {
	switch {
	case token == "":
		return nil
	case len(token) < MinOperatorToken || len(token) > maxOperatorToken:
		return fmt.Errorf("%d bytes, it must have %d to %d: take a random one, as openssl rand -hex 32 gives", len(token), MinOperatorToken, maxOperatorToken)
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("it has characters that are not printable ASCII, or spaces: it travels in a header")
		}
	}
	return nil
}

// requireOperator reports whether the request carries the operator's token, and sends an error if it does not.
func (e endpoint) requireOperator(w http.ResponseWriter, r *http.Request) bool {
	token := e.n.cfg.OperatorToken
	if token == "" {
		e.refuse(w, http.StatusForbidden, "this node takes no orders: it was started without an operator's token")
		return false
	}
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	want, got := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	if isBearer && subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
		return true
	}
	if given != "" {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		if e.n.noise.Allow("operator "+host, time.Now()) {
			e.n.logger.Warn("an operator's token was wrong", "remote", host, "path", cutEvent(r.URL.Path))
		}
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
	e.refuse(w, http.StatusUnauthorized, "this needs the operator's token: Authorization: Bearer <token>")
	return false
}

// OperatorError is the body of an answer that rejects an operator's request.
type OperatorError struct {
	Error string `json:"error"`
}

// refuse rejects an operator's request with the reason.
func (e endpoint) refuse(w http.ResponseWriter, code int, format string, args ...any) {
	e.serveJSON(w, code, OperatorError{fmt.Sprintf(format, args...)}, nil)
}

// readOrder reads the body of an operator's request into req, or rejects the request. like shows what the body should look
// like.
func (e endpoint) readOrder(w http.ResponseWriter, r *http.Request, req any, like string) bool {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(operatorBodyTime)) // a server that does not support it has limits of its own
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOperatorBody))
	d.DisallowUnknownFields()
	err := d.Decode(req)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("there is more after the first object")
		}
	}
	if err == nil {
		_ = control.SetReadDeadline(time.Time{}) // the connection may be used again
		return true
	}
	w.Header().Set("Connection", "close") // nothing waits for the rest of the body
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		e.refuse(w, http.StatusRequestEntityTooLarge, "the body is longer than %d bytes: send fewer keys at a time", long.Limit)
	} else {
		e.refuse(w, http.StatusBadRequest, "the body is not %s: %v", like, err)
	}
	return false
}

// requireNamespace reports whether the namespace exists here, and rejects the request if it does not.
func (e endpoint) requireNamespace(w http.ResponseWriter, namespace string) bool {
	_, ok := e.n.spaces.all()[namespace]
	if !ok {
		e.refuse(w, http.StatusNotFound, "there is no namespace %.130q on this node", namespace)
	}
	return ok
}

// InvalidateRequest is the JSON body of POST /invalidate, at most 1 MiB.
type InvalidateRequest struct {
	Namespace string   `json:"namespace"`
	Keys      []string `json:"keys,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	All       bool     `json:"all,omitempty"`     // everything in the namespace
	Version   uint64   `json:"version,omitempty"` // of the Keys, at the origin; 0: unknown
}

// InvalidateResult is the answer to an InvalidateRequest. The status is 200 if every member has confirmed; otherwise it is
// 502, and Error says which have not.
type InvalidateResult struct {
	Invalidated int        `json:"invalidated"`         // number of keys and tags, and 1 for everything
	Token       string     `json:"token,omitempty"`     // identifies these invalidations for reads elsewhere
	Unreached   []string   `json:"unreached,omitempty"` // members that have not confirmed
	CleanBy     *time.Time `json:"clean_by,omitempty"`  // time by which their copies are gone at the latest
	Error       string     `json:"error,omitempty"`
}

// invalidator is a namespace in which an operator can invalidate.
type invalidator interface {
	// InvalidateFor does what Apply of a cache does. unreached is not empty if some members have not confirmed; any other
	// err means that nothing was done.
	InvalidateFor(ctx context.Context, keys, tags []string, all bool, version uint64) (token string, unreached []string, cleanBy time.Time, err error)
}

// inspector is a namespace that can report its copies of a key.
type inspector interface {
	// InspectKey returns this member's copies of the key, without values, as something that encoding/json can marshal.
	InspectKey(key string) any
}

func (e endpoint) serveInvalidate(w http.ResponseWriter, r *http.Request) {
	var req InvalidateRequest
	if !e.requireOperator(w, r) || !e.readOrder(w, r, &req, `{"namespace": "...", "keys": ["..."], "tags": ["..."], "all": false}`) {
		return
	}
	count := len(req.Keys) + len(req.Tags)
	if req.All {
		count++
	}
	if count == 0 {
		e.refuse(w, http.StatusBadRequest, "no keys and no tags are named: there is nothing to invalidate")
		return
	}
	if !e.requireNamespace(w, req.Namespace) {
		return
	}
	space, ok := e.n.spaces.all()[req.Namespace].(invalidator)
	if !ok {
		e.refuse(w, http.StatusNotImplemented, "namespace %.130q cannot be invalidated from outside", req.Namespace)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), operatorTime)
	defer cancel()
	token, unreached, cleanBy, err := space.InvalidateFor(ctx, req.Keys, req.Tags, req.All, req.Version)
	if err != nil && len(unreached) == 0 {
		code := http.StatusBadRequest
		if ctx.Err() != nil || e.unhealthy() != "" {
			code = http.StatusServiceUnavailable
		}
		e.refuse(w, code, "%v", err)
		return
	}
	result, code := InvalidateResult{Invalidated: count, Token: token}, http.StatusOK
	if err != nil {
		result.Error, result.Unreached, result.CleanBy, code = err.Error(), unreached, &cleanBy, http.StatusBadGateway
	}
	e.n.logger.Info("an operator has invalidated keys", "namespace", req.Namespace, "keys", len(req.Keys), "tags", len(req.Tags), "all", req.All, "confirmed", err == nil)
	e.serveJSON(w, code, result, nil)
}

// KeyStats is the document of /key: where a key belongs, and which members have copies.
type KeyStats struct {
	Schema     int             `json:"schema"` // StatsSchema
	Namespace  string          `json:"namespace"`
	Partition  int             `json:"partition"`
	Owner      string          `json:"owner"`      // in this node's view
	Successors []string        `json:"successors"` // the next owners if the owner is lost, in order
	Members    []MemberKey     `json:"members"`    // members that answered, by name
	Missing    []MissingMember `json:"missing"`    // members that did not answer
}

// MemberKey is one member's answer in KeyStats.
type MemberKey struct {
	Name   string          `json:"name"`
	Copies json.RawMessage `json:"copies"` // as the namespace describes them
}

func (e endpoint) serveKey(w http.ResponseWriter, r *http.Request) {
	if !e.requireOperator(w, r) {
		return
	}
	namespace, key := r.URL.Query().Get("namespace"), r.URL.Query().Get("key")
	// On the wire the namespace takes nine bytes of the room for the key.
	if limit := codec.MaxKey - 9; key == "" || len(key) > limit {
		e.refuse(w, http.StatusBadRequest, "key has %d bytes: from 1 to %d can be looked for", len(key), limit)
		return
	}
	if !e.requireNamespace(w, namespace) {
		return
	}
	hash := ring.Hash(namespace)
	question := append(binary.BigEndian.AppendUint64([]byte{askKey}, hash), key...)
	ctx, cancel := context.WithTimeout(r.Context(), clusterTimeout)
	defer cancel()
	docs, missing := e.askAll(ctx, question, func() ([]byte, error) { return json.Marshal(e.copies(hash, key)) })
	view := e.n.View()
	out := KeyStats{
		Schema: StatsSchema, Namespace: namespace, Partition: view.Partition(key), Owner: view.Owner(key).Name,
		Successors: []string{}, Members: []MemberKey{}, Missing: append([]MissingMember{}, missing...),
	}
	for _, m := range view.Successors(key, keySuccessors) {
		out.Successors = append(out.Successors, m.Name)
	}
	for _, d := range docs {
		if !json.Valid(d.body) || len(d.body) > statsLimit {
			out.Missing = append(out.Missing, MissingMember{Name: d.Name, Addr: d.Addr, State: d.State, Reason: "its answer is not understood"})
			continue
		}
		out.Members = append(out.Members, MemberKey{Name: d.Name, Copies: d.body})
	}
	e.serveJSON(w, http.StatusOK, out, nil)
}

// copies returns this node's copies of a key. The namespace is given by its hash.
func (e endpoint) copies(namespace uint64, key string) any {
	for name, h := range e.n.spaces.all() {
		if space, ok := h.(inspector); ok && ring.Hash(name) == namespace {
			return space.InspectKey(key)
		}
	}
	return []struct{}{}
}
