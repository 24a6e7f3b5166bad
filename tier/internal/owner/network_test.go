package owner_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
)

// A network connects members. A call crosses it in frames, without delay.
type network struct {
	t *testing.T

	mu      sync.Mutex // guards the rest
	members map[string]*member
	sent    []sentCall
	// meddle, if not nil, sees each call before its receiver does. It may change the request, or answer the call itself, with
	// a response or an error.
	meddle func(from, to string, req *codec.Request, resp *codec.Response) (answered bool, err error)
}

// sentCall is a call that the network has carried.
type sentCall struct {
	from, to string
	kind     codec.Kind
	flags    uint8
}

var errDown = errors.New("the link is down")

// A member is one node's Cluster.
type member struct {
	net  *network
	self ring.Member
	node node

	mu      sync.Mutex // guards the rest
	view    *ring.View
	changed chan struct{}
}

// An informed is a member whose Cluster knows more than the interface demands.
type informed struct {
	*member
	lost, bypassed func(name string) bool
	earlier        func() bool
	moves          bool
}

func (m *informed) Lost(name string) bool { return m.lost == nil || m.lost(name) }

func (m *informed) Bypassed(name string) bool { return m.bypassed != nil && m.bypassed(name) }

func (m *informed) EarlierStart() bool { return m.earlier != nil && m.earlier() }

func (m *informed) SharesMove() bool { return m.moves }

func newNetwork(t *testing.T) *network {
	return &network{t: t, members: make(map[string]*member)}
}

// memberOf returns the ring's member of a name. Its incarnation is the same each time.
func memberOf(name string) ring.Member {
	return ring.Member{Name: name, Addr: name + ":1", Incarnation: 1}
}

// viewOf returns the view of members with these names.
func viewOf(t *testing.T, names ...string) *ring.View {
	t.Helper()
	var members []ring.Member
	for _, name := range names {
		members = append(members, memberOf(name))
	}
	v, err := ring.New(members, ring.Config{Partitions: 31})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// open starts a member, which has the view. change may replace the Cluster of the setup.
func (n *network) open(name string, view *ring.View, load loader, change func(*setup)) *member {
	n.t.Helper()
	m := &member{net: n, view: view, changed: make(chan struct{})}
	m.self, _ = view.Member(name)
	m.self.Name = name
	m.node = alone(n.t, load, func(s *setup) {
		s.Cluster, s.HandoffRate = m, 1<<30
		if change != nil {
			change(s)
		}
	})
	n.mu.Lock()
	n.members[name] = m
	n.mu.Unlock()
	return m
}

// pair opens two members with one view of both.
func (n *network) pair(load loader, change func(*setup)) (a, b *member) {
	n.t.Helper()
	view := viewOf(n.t, "a", "b")
	a, b = n.open("a", view, load, change), n.open("b", view, load, change)
	a.node.await(func() bool { return !a.node.Journal.IsOpening() && !b.node.Journal.IsOpening() })
	return a, b
}

// await polls until a condition holds; a test that waits for more than a minute of virtual time fails.
func (c node) await(holds func() bool) {
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	panic("the condition does not come to hold")
}

// show gives members the view.
func (n *network) show(view *ring.View, to ...*member) {
	for _, m := range to {
		m.mu.Lock()
		m.view = view
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
	}
}

// count returns how many calls of a kind were sent, from and to whom it is; an empty name stands for any member.
func (n *network) count(kind codec.Kind, from, to string) (calls int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sent {
		if s.kind == kind && (from == "" || s.from == from) && (to == "" || s.to == to) {
			calls++
		}
	}
	return calls
}

func (n *network) setMeddle(f func(from, to string, req *codec.Request, resp *codec.Response) (bool, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.meddle = f
}

func (m *member) Name() string { return m.self.Name }

func (m *member) View() *ring.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

func (m *member) ViewChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Call implements the Cluster of a Config.
func (m *member) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, own := m.net, *req
	n.mu.Lock()
	dst, meddle := n.members[to.Name], n.meddle
	n.sent = append(n.sent, sentCall{m.self.Name, to.Name, req.Kind, req.Flags})
	n.mu.Unlock()
	if meddle != nil {
		if answered, err := meddle(m.self.Name, to.Name, &own, resp); answered || err != nil {
			return err
		}
	}
	if dst == nil {
		return errDown
	}
	if req.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, req.Timeout)
		defer stop()
	}
	answer := dst.node.ask(ctx, &own)
	if err := ctx.Err(); err != nil {
		return err
	}
	return cross(&answer, resp)
}

// cross sends an answer through a frame.
func cross(answer, resp *codec.Response) error {
	frame := codec.AppendResponse(nil, answer)
	_, id, body, err := codec.FrameKind(frame[codec.FrameHeader:])
	if err == nil {
		err = codec.DecodeResponse(resp, id, body)
	}
	resp.Own(frame, func(b []byte) { clear(b) })
	return err
}

// ask lets the node answer a request that has crossed in a frame.
func (c node) ask(ctx context.Context, req *codec.Request) (resp codec.Response) {
	frame := codec.AppendRequest(nil, req)
	kind, id, body, err := codec.FrameKind(frame[codec.FrameHeader:])
	var got codec.Request
	if err == nil {
		err = codec.DecodeRequest(&got, kind, id, body)
	}
	if err != nil {
		panic(err)
	}
	if h := c.Handler(); !h.TryServe(&got, &resp) {
		h.Serve(ctx, &got, &resp)
	}
	clear(frame) // what the handler has kept of it is gone
	return resp
}

// get returns a get for a key, as a member with the node's view sends it.
func (c node) get(key string, flags uint8) *codec.Request {
	return &codec.Request{Kind: codec.KindGet, Flags: flags, Namespace: c.NamespaceBytes, View: c.viewPrint(), Key: []byte(key)}
}

func (c node) viewPrint() uint64 { return c.Config.Cluster.View().Fingerprint() }

// keyOf returns the nth key of a view that the member owns.
func keyOf(view *ring.View, name string, nth int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); view.Owner(key).Name == name {
			if nth--; nth < 0 {
				return key
			}
		}
	}
}

// movedKey returns the nth key that belongs to one member in a view and to another one in the next view.
func movedKey(before, after *ring.View, from, to string, nth int) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); before.Owner(key).Name == from && after.Owner(key).Name == to {
			if nth--; nth < 0 {
				return key
			}
		}
	}
}

// constant loads the key itself.
func constant(_ context.Context, _ *owner.Run, key string) ([]byte, error) { return []byte(key), nil }
