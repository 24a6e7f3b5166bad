package peer

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// maxEvents is how many events a node remembers: enough for the important ones of a bad night, and less than 20 KiB in
	// the stats document.
	maxEvents = 64
	// maxEventText is the length in bytes at which an event's texts are cut, because others choose parts of them.
	maxEventText = 200
	// eventKey is the attribute that names an event in the log.
	eventKey = "event"
)

// An Event is an entry in the operator's list of what has happened. Each event is also a log line whose attribute "event"
// holds the same name.
type Event struct {
	At     time.Time `json:"at"`
	Name   string    `json:"name"`             // stable; STATS.md lists them
	Level  string    `json:"level"`            // "INFO", "WARN" or "ERROR"
	Node   string    `json:"node"`             // the node that saw it
	Member string    `json:"member,omitempty"` // the member it is about
	Text   string    `json:"text"`
}

// eventNames maps the log lines that are events to their stable names. The texts may be improved, the names stay.
func eventNames() map[string]string {
	return map[string]string{
		"listening":                            "node_started",
		"closed":                               "node_closed",
		"view changed":                         "view_changed",
		"a member has joined":                  "member_joined",
		"a member has left":                    "member_left",
		"a member is lost":                     "member_lost",
		"a lost member has ended":              "member_ended",
		"a lost member is forgotten":           "member_forgotten",
		"a member is alive whose address":      "member_contradicts",
		"a member is alive although":           "member_contradicts",
		"another node with this node's":        "name_released",
		"a member flaps":                       "member_resting",
		"a member no longer rests":             "member_rested",
		"a member is kept out of the view":     "member_refused",
		"two live members have one name":       "name_taken",
		"another node has taken":               "name_taken",
		"the view cannot be rebuilt":           "view_failed",
		"cannot connect to peer":               "peer_unreachable",
		"connection to peer lost":              "peer_lost",
		"a peer is bypassed":                   "peer_bypassed",
		"a peer answers again":                 "peer_answers",
		"data connection refused":              "connection_refused",
		"members have had a different view":    "views_differ",
		"all members have the same view again": "views_agree",
		"most members are lost":                "view_split",
		"most members are back":                "view_healed",
		"an operator has invalidated keys":     "operator_invalidated",
		"an operator has warmed keys":          "operator_warmed",
		"an operator has begun a drill":        "operator_drill_begun",
		"an operator has stopped a drill":      "operator_drill_stopped",
		"an operator's token was wrong":        "operator_refused",
	}
}

// eventBook remembers the newest events.
type eventBook struct {
	names map[string]string // by the beginning of the text; never changed
	node  string

	mu   sync.Mutex // guards the rest
	past []Event    // oldest first
}

func newEventBook() *eventBook { return &eventBook{names: eventNames()} }

// name returns the stable name of a log line, or "" if the line is not an event.
func (b *eventBook) name(text string) string {
	if name, ok := b.names[text]; ok {
		return name
	}
	for start, name := range b.names {
		if len(text) > len(start) && text[:len(start)] == start {
			return name
		}
	}
	return ""
}

func (b *eventBook) add(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.past) == maxEvents {
		b.past = slices.Delete(b.past, 0, 1)
	}
	b.past = append(b.past, e)
}

// list returns a copy of the events, oldest first.
func (b *eventBook) list() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Event{}, b.past...)
}

// eventLog is a slog.Handler that adds stable names to the lines that are events, keeps them in the book, and passes on all
// lines.
type eventLog struct {
	next slog.Handler
	book *eventBook
}

// Enabled lets any line pass that may be an event, even if the log does not want it.
func (l eventLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || l.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l eventLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		if name := attr(r, eventKey); name != "" { // an event named by another package
			l.book.add(newEvent(name, l.book.node, r))
		} else if name := l.book.name(r.Message); name != "" {
			l.book.add(newEvent(name, l.book.node, r))
			r = r.Clone()
			r.AddAttrs(slog.String(eventKey, name))
		}
	}
	if !l.next.Enabled(ctx, r.Level) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l eventLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return eventLog{l.next.WithAttrs(attrs), l.book}
}

// WithGroup implements slog.Handler.
func (l eventLog) WithGroup(name string) slog.Handler {
	return eventLog{l.next.WithGroup(name), l.book}
}

// attr returns an attribute of a line as text, or "" if the line does not have it.
func attr(r slog.Record, key string) (value string) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			value = a.Value.Resolve().String()
		}
		return value == ""
	})
	return value
}

// newEvent makes an event from a log line.
func newEvent(name, node string, r slog.Record) Event {
	e := Event{At: r.Time.UTC(), Name: name, Level: r.Level.String(), Node: node}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		switch a.Key {
		case eventKey:
			return true
		case "member", "peer":
			e.Member = cutEvent(value)
		}
		text += ", " + a.Key + " " + value
		return true
	})
	e.Text = cutEvent(text)
	return e
}

func cutEvent(s string) string {
	if len(s) <= maxEventText {
		return s
	}
	return s[:maxEventText] + "..."
}

// Logger returns the node's logger, for caches that use the node. A line of at least level Info with the attribute "event"
// is also added to the list of events.
func (n *Node) Logger() *slog.Logger { return n.logger }
