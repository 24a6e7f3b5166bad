package trace

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// A Log is a trace in memory: the requests as key numbers.
type Log struct {
	Names []string // of the keys, in the order of their first request
	Sizes []int32  // of the keys' values as first recorded; 0: not recorded
	Keys  []int32  // one key per request
	At    []time.Duration
	Ops   []Op
}

// Len is the number of requests.
func (l *Log) Len() int { return len(l.Keys) }

// maxRequests bounds what is held in memory: 13 bytes per request, and the names of the keys.
const maxRequests = 100_000_000

// Load reads a trace into memory, at most limit requests (0: all). If the trace is damaged it returns the requests
// before the damage, and the error.
func Load(r *Reader, limit int) (*Log, error) {
	l := &Log{}
	known := make(map[string]int32)
	for limit == 0 || l.Len() < limit {
		q, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return l, err
		}
		if l.Len() >= maxRequests {
			return l, fmt.Errorf("trace %s: more than %d requests; set a limit", r.name, maxRequests)
		}
		i, ok := known[string(q.Key)]
		if !ok {
			i = int32(len(l.Names))
			name := string(q.Key)
			known[name] = i
			l.Names = append(l.Names, name)
			l.Sizes = append(l.Sizes, int32(min(q.Size, 1<<31-1)))
		}
		l.Keys = append(l.Keys, i)
		l.At = append(l.At, q.At)
		l.Ops = append(l.Ops, q.Op)
	}
	return l, nil
}
