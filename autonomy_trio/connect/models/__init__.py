"""AI models as agents, and agents that let a model decide what they say and which tools they use."""

from autonomy_trio.connect.models.agent import ModelAgent
from autonomy_trio.connect.models.chat import Approve, Chat, ChatInParts, ChatPart, ChatReply, ToolBegun, ToolEnded
from autonomy_trio.connect.models.filling import fill
from autonomy_trio.connect.models.messages import (
    Complete,
    CompleteInParts,
    Completion,
    ModelFailed,
    ModelStatistics,
    Part,
    ReadStatistics,
    Said,
    Text,
    ToolCall,
    ToolOffer,
    Usage,
)
from autonomy_trio.connect.models.model import Model
from autonomy_trio.connect.models.toolbox import ToolsOf

__all__ = [
    "Approve",
    "Chat",
    "ChatInParts",
    "ChatPart",
    "ChatReply",
    "Complete",
    "CompleteInParts",
    "Completion",
    "Model",
    "ModelAgent",
    "ModelFailed",
    "ModelStatistics",
    "Part",
    "ReadStatistics",
    "Said",
    "Text",
    "ToolBegun",
    "ToolCall",
    "ToolEnded",
    "ToolOffer",
    "ToolsOf",
    "Usage",
    "fill",
]
