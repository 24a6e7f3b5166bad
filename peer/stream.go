package peer

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxReaders is how many streams of events a node serves at once. It suffices for an operator's screens and bounds what
	// idle streams can hold.
	maxReaders = 32
	// streamInterval is the time between two events of a cluster of up to streamMembers members. In a larger cluster it
	// grows with the number of members.
	streamInterval = time.Second
	streamMembers  = 16
	// streamPatience is how long writing one event may take before its reader counts as too slow.
	streamPatience = 5 * time.Second
	// streamLife is how long a stream lasts; browsers reconnect.
	streamLife = time.Hour
)

// readers are the clients of /events. One goroutine of the node asks the members on behalf of all of them, as long as there
// are any.
type readers struct {
	refused, dropped atomic.Int64

	mu      sync.Mutex // guards the rest
	open    map[*reader]struct{}
	polling bool // the goroutine is running
}

// reader is one client of /events.
type reader struct{ newest chan []byte } // holds the newest document that is not written yet

// join adds a reader. It returns nil if there are too many. poll reports that the polling goroutine must be started.
func (s *readers) join() (one *reader, poll bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxReaders {
		return nil, false
	}
	if s.open == nil {
		s.open = make(map[*reader]struct{})
	}
	one = &reader{newest: make(chan []byte, 1)}
	s.open[one] = struct{}{}
	poll, s.polling = !s.polling, true
	return one, poll
}

func (s *readers) leave(one *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, one)
}

// wanted reports whether there are readers. If there are none, the polling goroutine must end.
func (s *readers) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polling = len(s.open) > 0
	return s.polling
}

// offer gives every reader a document, which replaces one that the reader has not written yet.
func (s *readers) offer(doc []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open {
		select {
		case <-one.newest:
		default:
		}
		one.newest <- doc // there is room, because only this function sends
	}
}

func (s *readers) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// pollStreams asks the members on behalf of the readers until there are none.
func (e endpoint) pollStreams() {
	s := &e.n.eyes.streams
	for e.n.ctx.Err() == nil && s.wanted() {
		wait := streamInterval
		doc, err := e.n.ClusterStats(e.n.ctx)
		if err == nil {
			body, err := json.Marshal(doc)
			if err == nil {
				s.offer(body)
			} else {
				e.n.logger.Error("an answer cannot be encoded", "error", err)
			}
			wait *= time.Duration(max(1, (len(doc.Members)+streamMembers-1)/streamMembers))
		}
		if !pause(e.n.ctx, wait) {
			return
		}
	}
}

func (e endpoint) serveStream(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(streamPatience)); errors.Is(err, http.ErrNotSupported) {
		http.Error(w, "the server around this handler does not let it drop slow readers: ask for stats?cluster=1 instead", http.StatusNotImplemented)
		return
	}
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // the connection may be used again
	_ = control.SetReadDeadline(time.Time{})                     // a server's ReadTimeout would end the stream
	s := &e.n.eyes.streams
	me, poll := s.join()
	if me == nil {
		s.refused.Add(1)
		w.Header().Set("Retry-After", "10")
		http.Error(w, "there are too many streams of events already: ask for stats?cluster=1 instead", http.StatusServiceUnavailable)
		return
	}
	defer s.leave(me)
	if poll && !e.n.start(e.pollStreams) {
		http.Error(w, "closed", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would buffer the events
	end := time.NewTimer(streamLife)
	defer end.Stop()
	event := []byte("retry: 2000\n\n")
	for {
		_ = control.SetWriteDeadline(time.Now().Add(streamPatience)) // supported, as the call above has shown
		_, err := w.Write(event)
		if err == nil {
			err = control.Flush()
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.dropped.Add(1)
			}
			return
		}
		select {
		case doc := <-me.newest:
			event = append(append([]byte("event: stats\ndata: "), doc...), "\n\n"...)
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		case <-e.n.ctx.Done():
			return
		}
	}
}
