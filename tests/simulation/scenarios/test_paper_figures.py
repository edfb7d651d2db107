"""Figures 7 and 8 of the Raft paper (Ongaro, Ousterhout: USENIX ATC 2014, extended version) as exact scripts.

The logs are laid on the disks as the figures draw them; messages are let through as the figures' stories have it. Who
campaigns is decided by letting nobody else's requests for votes arrive. A leader of this product begins its term with
an empty entry, and its session's, which stand where the figures have a client's.
"""

from __future__ import annotations

from raftnode.codec import PeerMessage
from statemachine.messages import AppendEntries, RequestVote, RequestVoteResult
from tests.simulation.scenarios.cluster import SECOND_US, Cluster, Settings, only_candidate
from tests.simulation.scenarios.disks import lay_log
from tests.simulation.scenarios.seeds import scenario

# Figure 7

LEADER, A, B, C, D, E, F = range(1, 8)
FIGURE_7_LOGS = {
    LEADER: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6),
    A: (1, 1, 1, 4, 4, 5, 5, 6, 6),
    B: (1, 1, 1, 4),
    C: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    D: (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    E: (1, 1, 1, 4, 4, 4, 4),
    F: (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}
FIGURE_7_RUNS = [(1, 1), (4, 4), (6, 5), (8, 6), (11, 8)]
"""The leader's log once it leads: where each term begins."""
MAY_VOTE = {A, B, E, F}
"""Those whose logs aren't more up-to-date than the leader's: (c)'s is longer, (d)'s last term is later."""
SEVEN = Settings(servers=7, starts=False)
FIVE = Settings(servers=5, starts=False)


def start_figure_7(cluster: Cluster) -> None:
    """All servers with the figure's logs, none of them past term 7; only the figure's leader may campaign."""
    for server, log in FIGURE_7_LOGS.items():
        lay_log(cluster, server, log, current_term=7)
    cluster.only_candidate(LEADER)
    cluster.world.start()


@scenario(SEVEN)
def test_figure_7_the_leader_is_elected_with_the_votes_that_are_possible(cluster: Cluster) -> None:
    """(c) and (d) never vote for it, at least three of the others do; then all logs become the leader's own."""
    traffic = cluster.count()
    start_figure_7(cluster)
    assert cluster.wait_for_leader() == LEADER
    assert cluster.raft(LEADER).current_term == 8
    votes = {sender for sender, _, message in traffic.sent if _is_vote(message)}
    assert len(votes) >= 3
    assert votes <= MAY_VOTE
    cluster.wait_until_equal()
    assert all(cluster.raft(server).log.runs() == FIGURE_7_RUNS for server in cluster.ids)


@scenario(SEVEN)
def test_figure_7_without_a_majority_of_possible_votes_nobody_is_elected(cluster: Cluster) -> None:
    """With (e) and (f) away, only (a) and (b) are left to vote for it, and it asks in vain until one is back."""
    start_figure_7(cluster)
    cluster.disconnect(E, F)
    cluster.nobody_leads_for(3 * SECOND_US)
    assert all(cluster.raft(server).current_term == 7 for server in cluster.ids), "it only asks whether it would be"
    cluster.connect(cluster.dice.choice((E, F)))
    assert cluster.wait_for_leader() == LEADER
    cluster.mend()
    cluster.wait_until_equal()
    assert all(cluster.raft(server).log.runs() == FIGURE_7_RUNS for server in cluster.ids)


def _is_vote(message: PeerMessage) -> bool:
    return isinstance(message, RequestVoteResult) and message.vote_granted and not message.pre_vote


# Figure 8

S1, S2, S3, S4, S5 = range(1, 6)


def terms(cluster: Cluster, server: int) -> list[int]:
    """The terms that a server's log has entries of, in order."""
    return [term for _, term in cluster.raft(server).log.runs()]


def figure_8_until_c(cluster: Cluster) -> None:
    """(a): S1 led term 2 and has replicated the entry at index 2 to S2 only. (b): S5 leads term 3, with its own entry
    at index 2, and crashes. (c): S1 leads term 4 and replicates the entry of term 2 to S3: it is on a majority.
    """
    for server, log in {S1: (1, 2), S2: (1, 2), S3: (1,), S4: (1,), S5: (1,)}.items():
        lay_log(cluster, server, log, current_term=2)
    # (b): nothing that S5 appends arrives, so its entry stays its own.
    cluster.world.lets_pass = lambda sender, receiver, message: (
        _only_s5(sender, receiver, message) and not isinstance(message, AppendEntries)
    )
    cluster.world.start()
    cluster.crash(S1)
    cluster.wait(lambda: cluster.server(S5).is_leader, 10 * SECOND_US, "S5 elected")
    assert cluster.raft(S5).current_term == 3
    assert cluster.raft(S5).votes >= {S3, S4, S5}, "S2 has an entry of term 2"
    assert S2 not in cluster.raft(S5).votes
    cluster.wait(lambda: cluster.raft(S5).persisted_index >= 2, SECOND_US, "S5's entry on its disk")
    cluster.crash(S5)

    # (c): nothing of term 4 is appended anywhere but at S1, and nothing at all at S4.
    def lets_pass(sender: int, receiver: int, message: PeerMessage) -> bool:
        if isinstance(message, AppendEntries):
            return receiver != S4 and not _would_append_term_4(cluster, receiver, message)
        return _only_s1(sender, receiver, message)

    cluster.world.lets_pass = lets_pass
    cluster.restart(S1)
    cluster.wait(lambda: cluster.server(S1).is_leader, 10 * SECOND_US, "S1 elected")
    assert cluster.raft(S1).current_term == 4
    cluster.wait(lambda: terms(cluster, S3) == [1, 2], 5 * SECOND_US, "S3 has the entry of term 2")
    # That S2 has it, too, S1 learns from a message without the entries of term 4.
    cluster.send(S1, S2, AppendEntries(4, S1, 2, 2, 0, (), 0, cluster.raft(S1).round_number))
    cluster.run_for(SECOND_US // 2)
    assert cluster.server(S1).is_leader
    assert [terms(cluster, server) for server in (S1, S2, S3, S4)] == [[1, 2, 4], [1, 2], [1, 2], [1]]
    assert cluster.raft(S1).progress[S2].match_index == cluster.raft(S1).progress[S3].match_index == 2
    assert cluster.raft(S1).commit_index < 2, "an older term's entry isn't committed by counting"


def _would_append_term_4(cluster: Cluster, receiver: int, message: AppendEntries) -> bool:
    """Whether a server would take the entries; if its log doesn't reach up to them, it only says so."""
    if message.entries_term != 4 or receiver not in cluster.up:
        return False
    return cluster.raft(receiver).log.last_index >= message.prev_log_index


_only_s1 = only_candidate(S1)
_only_s5 = only_candidate(S5)


@scenario(FIVE)
def test_figure_8_d_the_entry_of_the_older_term_is_overwritten(cluster: Cluster) -> None:
    """(d): S1 crashes, S5 is elected with the votes of S2, S3 and S4, and its own entry takes the place everywhere."""
    figure_8_until_c(cluster)
    cluster.crash(S1)
    cluster.only_candidate(S5)
    cluster.restart(S5)
    assert cluster.wait_for_leader() == S5
    assert cluster.raft(S5).current_term == 5
    cluster.wait_until_equal()
    assert all(terms(cluster, server) == [1, 3, 5] for server in (S2, S3, S4, S5))
    cluster.restart(S1)
    cluster.wait_until_equal()
    assert terms(cluster, S1) == [1, 3, 5]


@scenario(FIVE)
def test_figure_8_e_the_entry_is_committed_with_one_of_the_leaders_own_term(cluster: Cluster) -> None:
    """(e): S1 replicates an entry of term 4 to a majority before it crashes: then S5 can't be elected any more."""
    figure_8_until_c(cluster)
    cluster.world.lets_pass = lambda sender, receiver, message: (
        _only_s1(sender, receiver, message) and not (isinstance(message, AppendEntries) and receiver == S4)
    )
    cluster.wait(lambda: cluster.raft(S1).commit_index >= 3, 5 * SECOND_US, "both committed")
    assert all(terms(cluster, server) == [1, 2, 4] for server in (S1, S2, S3))
    cluster.crash(S1)
    cluster.only_candidate(S5)
    cluster.restart(S5)
    traffic = cluster.count()
    cluster.nobody_leads_for(3 * SECOND_US)
    assert any(isinstance(message, RequestVote) and sender == S5 for sender, _, message in traffic.sent)
    cluster.only_candidate(None)
    leader = cluster.wait_for_leader()
    assert leader in (S2, S3)
    cluster.restart(S1)
    cluster.wait_until_equal()
    for server in cluster.ids:
        assert terms(cluster, server)[:3] == [1, 2, 4]
