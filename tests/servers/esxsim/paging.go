package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// paged answers bulk reads in pages of as many objects as were asked for, as a host does; the simulator would answer
// all at once. What is left over waits under a token until it is asked for, once. It says whether it answered.
func (f *front) paged(w http.ResponseWriter, r *http.Request, m *simulator.Method, body []byte) bool {
	const open, shut = "<objects>", "</objects>"
	var rest []string
	most := 0
	switch req := m.Body.(type) {
	case *types.RetrievePropertiesEx:
		most = int(req.Options.MaxObjects)
		if most == 0 {
			return false
		}
		rec := httptest.NewRecorder()
		f.pass(rec, r, body)
		out := rec.Body.String()
		first := strings.Index(out, open)
		if rec.Code != http.StatusOK || strings.Count(out, open) <= most {
			w.WriteHeader(rec.Code)
			fmt.Fprint(w, out)
			return true
		}
		rest = strings.SplitAfter(out[first:strings.LastIndex(out, shut)+len(shut)], shut)
		rest = rest[:len(rest)-1]
	case *types.ContinueRetrievePropertiesEx:
		f.mu.Lock()
		rest = f.pages[req.Token]
		delete(f.pages, req.Token)
		f.mu.Unlock()
		if rest == nil {
			soapFault(w, m.This, "InvalidArgument")
			return true
		}
		most, _ = strconv.Atoi(strings.SplitN(req.Token, "-", 2)[0])
	default:
		return false
	}
	page, token := rest, ""
	if len(rest) > most {
		f.mu.Lock()
		f.tokens++
		name := fmt.Sprintf("%d-%d", most, f.tokens)
		f.pages[name] = rest[most:]
		f.mu.Unlock()
		page, token = rest[:most], "<token>"+name+"</token>"
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, head+`<%sResponse xmlns="urn:vim25"><returnval>%s%s</returnval></%sResponse>`+tail,
		m.Name, token, strings.Join(page, ""), m.Name)
	return true
}
