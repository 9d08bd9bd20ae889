// Package payload turns payloads into rows.
package payload
