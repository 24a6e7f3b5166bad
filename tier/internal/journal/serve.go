package journal

import (
	"github.com/weircache/weir/codec"
)

// ServeNews answers a request that carries invalidations: it applies them, and says how far this cache has applied
// those of the sender.
func (j *Journal) ServeNews(req *codec.Request, resp *codec.Response) {
	resp.Status = codec.StatusDone
	if req.News == nil {
		return
	}
	j.Receive(req.News)
	resp.Incarnation = j.log.self
	var from uint64
	if n := len(req.News.Invalidations); n > 0 {
		from = req.News.Invalidations[n-1].Mark.Incarnation
	} else if n := len(req.News.Bases); n > 0 {
		from = req.News.Bases[n-1].Incarnation
	}
	j.mu.Lock()
	resp.Seq = j.log.upTo(from)
	j.mu.Unlock()
	// The view is read after the invalidations were applied, so it contains every member that was given an older
	// copy.
	if view := j.peers.View(); view.Fingerprint() != req.View {
		for _, m := range view.Members() {
			if m.Name != j.self {
				resp.Members = append(resp.Members, []byte(m.Name))
			}
		}
	}
}

// ServePositions answers the request of an exchange: it tells this cache's positions and what the sender lacks.
func (j *Journal) ServePositions(req *codec.Request, resp *codec.Response) {
	var asked codec.News
	if req.News != nil {
		asked = *req.News
		j.log.lives.heard(asked.Life)
	}
	j.mu.Lock()
	news := j.positions()
	news.More = j.log.fill(deltaOf(&asked), news, j.now())
	j.mu.Unlock()
	resp.Status, resp.Incarnation, resp.Value = codec.StatusSynced, j.log.self, codec.AppendNews(nil, news)
}

// Missing returns what a member with these positions lacks, as much as one frame takes; nil: nothing. applied is what
// this cache has applied by then.
func (j *Journal) Missing(positions *codec.News) (lacks *codec.News, applied *Watermark) {
	j.log.lives.heard(positions.Life)
	lacks = new(codec.News)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log.fill(deltaOf(positions), lacks, j.now())
	if len(lacks.Bases)+len(lacks.Invalidations) == 0 {
		lacks = nil
	}
	return lacks, j.appliedHere(0)
}
