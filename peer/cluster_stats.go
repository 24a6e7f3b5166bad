package peer

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

const (
	// askNamespace is the namespace in which nodes answer each other's questions about themselves. No cache can have this
	// name, because it is not printable.
	askNamespace = "\x00weir"
	// The kinds of questions, as the first byte of the key.
	askStats = 's' // the Stats document
	askKey   = 'k' // a namespace's hash, 8 bytes, and a key: which copies exist
	askDrill = 'd' // a DrillRequest: start or stop a drill

	// clusterTimeout bounds one round of asking all members.
	clusterTimeout = 2 * time.Second
	// clusterParallel is how many members are asked at once.
	clusterParallel = 16
	// statsLimit is the longest stats document that is accepted from a member, in bytes: enough for a hundred namespaces.
	statsLimit = 512 << 10
)

// eyes holds what the operator's endpoint needs of a node.
type eyes struct {
	started time.Time
	book    *eventBook
	streams readers

	mu     sync.Mutex           // guards the rest
	poll   *poll                // the round of asking all members that is in progress; nil: none
	drills map[string]*drillRun // that an operator has started here, by namespace
}

// open creates the book of events. All log lines pass through it from now on.
func (e *eyes) open(s *settings) {
	e.started = time.Now()
	e.book = newEventBook()
	s.Logger = slog.New(eventLog{s.Logger.Handler(), e.book})
}

// ClusterStats is the document that the stats endpoint serves with ?cluster=1. It holds what each member reports about
// itself, and which members did not answer.
type ClusterStats struct {
	Schema  int             `json:"schema"`  // StatsSchema
	By      string          `json:"by"`      // the node that asked the others
	At      time.Time       `json:"at"`      // when it did
	Members []MemberStats   `json:"members"` // members that answered, by name, the asking node included
	Missing []MissingMember `json:"missing"` // members that did not answer, by name
	// Total combines the namespaces' statistics over Members; STATS.md says how.
	Total map[string]any `json:"total"`
}

// MemberStats is one member's answer in ClusterStats.
type MemberStats struct {
	Name  string          `json:"name"`
	RTT   float64         `json:"rtt_seconds"` // of this request, without the member's own time; 0 for the asking node
	Stats json.RawMessage `json:"stats"`       // its Stats; it may run another version of weir
}

// MissingMember is a member that did not report to ClusterStats.
type MissingMember struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"`
	State  State  `json:"state"`  // as the asking node sees it
	Reason string `json:"reason"` // why it did not answer
}

// poll is one round of asking all members. Fields without a lock are written before done closes.
type poll struct {
	done chan struct{}
	out  ClusterStats
}

// ClusterStats asks every member for its Stats over the data connections, for at most two seconds, and returns the answers
// it got. Concurrent calls share one round. It fails only if ctx ends or the node is closed. It is safe for concurrent use.
// The result is shared: do not change it.
func (n *Node) ClusterStats(ctx context.Context) (ClusterStats, error) {
	n.eyes.mu.Lock()
	p := n.eyes.poll
	if p == nil {
		p = &poll{done: make(chan struct{})}
		if !n.start(func() { endpoint{n}.ask(p) }) {
			n.eyes.mu.Unlock()
			return ClusterStats{}, ErrClosed
		}
		n.eyes.poll = p
	}
	n.eyes.mu.Unlock()
	select {
	case <-p.done:
		return p.out, nil
	case <-ctx.Done():
		return ClusterStats{}, ctx.Err()
	}
}

// start runs f in a goroutine that Close joins. It returns false if the node is closed.
func (n *Node) start(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return false
	}
	n.wg.Go(f)
	return true
}

// ask runs one round of asking all members.
func (e endpoint) ask(p *poll) {
	ctx, cancel := context.WithTimeout(e.n.ctx, clusterTimeout)
	defer cancel()
	p.out = ClusterStats{Schema: StatsSchema, By: e.n.id.Name, At: time.Now().UTC(), Members: []MemberStats{}, Missing: []MissingMember{}}
	docs, missing := e.askAll(ctx, []byte{askStats}, e.statsJSON)
	p.out.Missing = append(p.out.Missing, missing...)
	var all []map[string]any
	for _, d := range docs {
		spaces, err := checkStats(d.body)
		if err != nil {
			p.out.Missing = append(p.out.Missing, MissingMember{Name: d.Name, Addr: d.Addr, State: d.State, Reason: err.Error()})
			continue
		}
		all = append(all, spaces)
		p.out.Members = append(p.out.Members, MemberStats{Name: d.Name, RTT: d.rtt.Seconds(), Stats: d.body})
	}
	slices.SortFunc(p.out.Missing, func(a, b MissingMember) int { return cmp.Compare(a.Name, b.Name) })
	p.out.Total = addStats(all...)
	e.n.eyes.mu.Lock()
	e.n.eyes.poll = nil
	e.n.eyes.mu.Unlock()
	close(p.done)
}

// checkStats validates a member's document, which may come from another version of weir, and returns its namespaces.
func checkStats(body []byte) (map[string]any, error) {
	if len(body) > statsLimit {
		return nil, fmt.Errorf("its statistics take %d bytes, the limit is %d", len(body), statsLimit)
	}
	var d struct {
		Schema     int            `json:"schema"`
		Namespaces map[string]any `json:"namespaces"`
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, errors.New("its statistics are no JSON that this version of weir understands")
	}
	if d.Schema != StatsSchema {
		return nil, fmt.Errorf("its statistics have schema %d, this node understands %d: it runs another version of weir", d.Schema, StatsSchema)
	}
	return d.Namespaces, nil
}

// memberDoc is one member's answer.
type memberDoc struct {
	MemberInfo
	rtt  time.Duration
	body []byte
}

// askAll asks every member that may answer, and calls self for this node. The answers are sorted by name.
func (e endpoint) askAll(ctx context.Context, question []byte, self func() ([]byte, error)) (docs []memberDoc, missing []MissingMember) {
	var mu sync.Mutex // guards docs and missing
	var wg sync.WaitGroup
	room := make(chan struct{}, clusterParallel)
	for _, m := range e.n.Members() {
		absent := func(reason string) {
			mu.Lock()
			defer mu.Unlock()
			missing = append(missing, MissingMember{Name: m.Name, Addr: m.Addr, State: m.State, Reason: reason})
		}
		switch {
		case m.State == StateLost:
			reason := "it is lost"
			if m.Since != nil {
				reason += " since " + m.Since.UTC().Format(time.RFC3339)
			}
			absent(reason + ": dead, or cut off")
			continue
		case m.State == StateRefused:
			absent("it is kept out of the view: " + m.Reason)
			continue
		}
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			doc := memberDoc{MemberInfo: m}
			var err error
			if m.Name == e.n.id.Name && m.Incarnation == e.n.id.Incarnation {
				doc.body, err = self()
			} else {
				doc.body, doc.rtt, err = e.askMember(ctx, m, question)
			}
			if err != nil {
				absent(err.Error())
				return
			}
			mu.Lock()
			defer mu.Unlock()
			docs = append(docs, doc)
		})
	}
	wg.Wait()
	slices.SortFunc(docs, func(a, b memberDoc) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(missing, func(a, b MissingMember) int { return cmp.Compare(a.Name, b.Name) })
	return docs, missing
}

// askMember asks one member. The returned bytes belong to the caller.
func (e endpoint) askMember(ctx context.Context, m MemberInfo, question []byte) ([]byte, time.Duration, error) {
	req := codec.Request{Kind: codec.KindGet, Namespace: []byte(askNamespace), Schema: StatsSchema, Key: question}
	var resp codec.Response
	began := time.Now()
	if err := e.n.Call(ctx, ring.Member{Name: m.Name, Addr: m.Addr, Incarnation: m.Incarnation}, &req, &resp); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", clusterTimeout)
		}
		return nil, 0, err
	}
	defer resp.Release()
	rtt := max(time.Since(began)-resp.Held, 0)
	doc, err := documentOf(&resp)
	return doc, rtt, err
}

// documentOf returns the document in an answer, or why there is none. The bytes belong to the caller.
func documentOf(resp *codec.Response) ([]byte, error) {
	switch resp.Status {
	case codec.StatusValue:
		return slices.Clone(resp.Value), nil
	case codec.StatusUnknown, codec.StatusMismatch:
		return nil, errors.New("it runs a version of weir that does not understand the question")
	case codec.StatusTooLarge:
		return nil, errors.New("its answer is too large")
	case codec.StatusBusy:
		return nil, errors.New("it has too much in flight")
	}
	return nil, fmt.Errorf("it says: %q", cutEvent(string(resp.Text)))
}

// answers answers other members' questions about this node.
type answers struct{ endpoint }

// TryServe implements codec.Handler. No question here is quick enough to be served by it.
func (answers) TryServe(*codec.Request, *codec.Response) bool { return false }

// Serve implements codec.Handler.
func (a answers) Serve(_ context.Context, req *codec.Request, resp *codec.Response) {
	began := time.Now()
	resp.Status, resp.Text = codec.StatusFailed, []byte("no such question")
	if req.Kind != codec.KindGet || len(req.Key) == 0 {
		return
	}
	var body []byte
	var err error
	switch question := req.Key[1:]; {
	case req.Key[0] == askStats:
		body, err = a.statsJSON()
	case req.Key[0] == askKey && len(question) > 8:
		body, err = json.Marshal(a.copies(binary.BigEndian.Uint64(question), string(question[8:])))
	case req.Key[0] == askDrill:
		if err := a.obey(question); err != nil {
			resp.Text = []byte(cutEvent(err.Error()))
			return
		}
	default:
		return
	}
	if err != nil {
		a.n.logger.Error("statistics cannot be encoded", "error", err)
		resp.Text = []byte("the answer cannot be encoded")
		return
	}
	resp.Status, resp.Value, resp.Text, resp.Held = codec.StatusValue, body, nil, time.Since(began)
}

// Stats implements codec.Handler. It is never asked for.
func (answers) Stats() any { return nil }
