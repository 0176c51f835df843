import math
import numba
import numpy as np
from lhcq.jets.lanes import *
from lhcq.jets.recombination import *
from lhcq.jets.recombination import N_DONE, record_of

def compiled(f):
    return numba.njit(error_model="numpy", nogil=True)(f)

@compiled
def set_directions(px, py, pz, e, rap, phi, pt2, weight, power, scratch, by_libm):
    n = len(px)
    S=address_of(scratch)
    PX,PY,PZ,E=address_of(px),address_of(py),address_of(pz),address_of(e)
    W=address_of(weight)
    R,P,T=address_of(rap),address_of(phi),address_of(pt2)
    for k in range(n // 8):
        a, b, c = directions_of(row(PX,k),row(PY,k),row(PZ,k),row(E,k),by_libm,S)
        put_row(T,k,a); put_row(R,k,b); put_row(P,k,c); put_row(W,k,weights_of(a,power))
    rest = n//8*8
    if rest<n:
        for k in range(8):
            j = min(rest+k,n-1)
            put(S,24+k,px[j]); put(S,32+k,py[j]); put(S,40+k,pz[j]); put(S,48+k,e[j])
        a, b, c = directions_of(row(S,3),row(S,4),row(S,5),row(S,6),by_libm,S)
        put_row(S,3,a); put_row(S,4,b); put_row(S,5,c); put_row(S,6,weights_of(a,power))
        for k in range(n-rest):
            pt2[rest+k]=get(S,24+k); rap[rest+k]=get(S,32+k); phi[rest+k]=get(S,40+k); weight[rest+k]=get(S,48+k)

@inlined
def _list_leaves(node, n, first, links, stack, members, at):
    put_int(stack, 0, node)
    depth = 1
    while depth > 0:
        depth -= 1
        node = get_int(stack, depth)
        if node < n:
            members[at] = first + node
            at += 1
        else:
            put_int(stack, depth, get_int(links, 2*node)); put_int(stack, depth+1, get_int(links, 2*node+1))
            depth += 2
    return at

@inlined
def _sort_by_pt(desk, lane, n_done, pt_min):
    kept = 0
    done, pt = desk.done + 8*desk.most*lane, desk.found
    for k in range(n_done):
        node = get_int(done,k)
        r = record_of(desk,lane,node); x,y = get(r,0), get(r,1)
        value = math.sqrt(x*x+y*y)
        if value < pt_min:
            continue
        place = kept
        while place > 0 and get(pt,place-1) < value:
            put(pt,place,get(pt,place-1)); put_int(done,place,get_int(done,place-1))
            place -= 1
        put(pt,place,value); put_int(done,place,node)
        kept += 1
    return kept

@compiled
def find_groups(px, py, pz, e, rap, phi, pt2, weight, offsets, order, most, power, radius, pt_min, by_libm, n_lanes, work, n_jets, held, held_members):
    """held (n,6): px py pz e size pt_lead"""
    desk = lay_out(address_of(work), most, n_lanes)
    n_events = len(order)
    for start in range(0, n_events, 8):
        n_most = 0
        for lane in range(min(8, n_events-start)):
            ev = order[start+lane]
            n_most = max(n_most, offsets[ev+1]-offsets[ev])
        if n_most == 0:
            for lane in range(min(8, n_events-start)):
                n_jets[order[start+lane]] = 0
            continue
        for lane in range(n_lanes):
            n = 0
            if start+lane < n_events:
                ev = order[start+lane]
                n = offsets[ev+1]-offsets[ev]
            close_lane(desk, lane, n, n_most)
        for begin in range(0, n_most, 16):
            for lane in range(min(8, n_events-start)):
                ev = order[start+lane]
                first = offsets[ev]
                for k in range(begin, min(begin+16, offsets[ev+1]-first)):
                    record = record_of(desk, lane, k)
                    put(record,0,px[first+k]); put(record,1,py[first+k]); put(record,2,pz[first+k]); put(record,3,e[first+k])
                    set_out(desk, lane, k, rap[first+k],phi[first+k],weight[first+k])
        cluster(desk, n_most, power, radius*radius, by_libm, 0)
        for lane in range(min(8, n_events-start)):
            ev = order[start+lane]
            first = offsets[ev]
            n = offsets[ev+1]-first
            n_done = get_int(desk.notes, 8*N_DONE+lane)
            kept = _sort_by_pt(desk, lane, n_done, pt_min)
            n_jets[ev] = kept
            at = first
            for k in range(kept):
                node = get_int(desk.done, desk.most*lane+k)
                for c in range(4):
                    held[first+k,c] = get(record_of(desk,lane,node), c)
                end = _list_leaves(node, n, first, desk.links+32*desk.most*lane, desk.sector, held_members, at)
                hardest = 0.0
                for m in range(at, end):
                    hardest = max(hardest, pt2[held_members[m]])
                held[first+k,4] = end-at
                held[first+k,5] = math.sqrt(hardest)
                at = end

@compiled
def assemble(offsets, n_jets, held, held_members, momenta, starts, members, pt_lead):
    listed = 0
    at = 0
    starts[0]=0
    for ev in range(len(n_jets)):
        src = offsets[ev]
        for k in range(n_jets[ev]):
            for c in range(4):
                momenta[c,listed]=held[offsets[ev]+k,c]
            pt_lead[listed]=held[offsets[ev]+k,5]
            for _ in range(int(held[offsets[ev]+k,4])):
                members[at]=held_members[src]
                at+=1; src+=1
            listed+=1
            starts[listed]=at

def run(v, power=-2, R=1.0, pt_min=20.0, by_libm=0):
    n=len(v.px); ev=len(v.counts)
    off=v.offsets
    most=int(v.counts.max(initial=1))
    rap,phi,pt2,w=np.empty(n),np.empty(n),np.empty(n),np.empty(n)
    scratch=np.empty(56)
    work=np.empty(room_for(most))
    set_directions(v.px,v.py,v.pz,v.e,rap,phi,pt2,w,power,scratch,by_libm)
    order=np.argsort(v.counts,kind="stable")
    n_jets=np.zeros(ev,np.int64); held=np.empty((n,6)); hm=np.empty(n,np.int64)
    for b in range(0,ev,256) if ev>300 else (0,):
        pass
    find_groups(v.px,v.py,v.pz,v.e,rap,phi,pt2,w,off,order,most,power,R,pt_min,by_libm,8,work,n_jets,held,hm)
    m=np.empty((4,n)); s=np.empty(n+1,np.int64); mem=np.empty(n,np.int64); pl=np.empty(n)
    assemble(off,n_jets,held,hm,m,s,mem,pl)
    return n_jets,m,s,mem,pl
