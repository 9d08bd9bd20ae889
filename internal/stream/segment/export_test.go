package segment

import "github.com/leat-io/leat/internal/stream"

// Queued is how many appends and control commits wait for the lane's next commit.
func (l *Log) Queued(lane stream.Lane) int {
	la := l.lanes[lane]
	la.mu.Lock()
	defer la.mu.Unlock()
	return len(la.queue.items)
}
