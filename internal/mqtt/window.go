package mqtt

import "encoding/binary"

// window keeps to a subscriber's Receive Maximum [MQTT-3.3.4-9]: publishes of QoS 1 and 2 beyond it wait here, in order,
// until earlier ones are acknowledged. mochi has a send quota of its own, which loses order and stalls when it is
// reached, and does not apply it to what it repeats after a reconnect; it is switched off. mochi bounds how many
// messages are unacknowledged (max_inflight), and so what can wait here. The connection's write lock guards a window.
type window struct {
	limit int                 // 0: none
	open  map[uint16]struct{} // packet identifiers sent and not acknowledged
	held  [][]byte            // whole packets that wait
}

// pass appends to dst those packets of p that may go now and keeps copies of the others.
func (w *window) pass(dst, p []byte) []byte {
	for len(p) > 0 {
		size, id, counts := cutPublish(p)
		switch {
		case !counts:
			dst = append(dst, p[:size]...)
		case len(w.open) < w.limit && len(w.held) == 0:
			w.open[id] = struct{}{}
			dst = append(dst, p[:size]...)
		default:
			w.held = append(w.held, append([]byte(nil), p[:size]...))
		}
		p = p[size:]
	}
	return dst
}

// acknowledged closes an identifier and returns what may go now.
func (w *window) acknowledged(id uint16) (next []byte) {
	delete(w.open, id)
	for len(w.held) > 0 && len(w.open) < w.limit {
		p := w.held[0]
		w.held[0], w.held = nil, w.held[1:]
		_, id, _ := cutPublish(p)
		w.open[id] = struct{}{}
		next = append(next, p...)
	}
	return next
}

// cutPublish measures the first packet of p, which the library encoded. counts is true for a PUBLISH of QoS 1 or 2.
func cutPublish(p []byte) (size int, id uint16, counts bool) {
	n, used := binary.Uvarint(p[1:])
	if used <= 0 || n > uint64(len(p)-1-used) {
		return len(p), 0, false
	}
	size = 1 + used + int(n)
	const publish, qosBits = 0x30, 0x06
	if p[0]&0xf0 != publish || p[0]&qosBits == 0 {
		return size, 0, false
	}
	body := p[1+used : size]
	if len(body) < 2 {
		return size, 0, false
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if at+2 > len(body) {
		return size, 0, false
	}
	return size, binary.BigEndian.Uint16(body[at:]), true
}
